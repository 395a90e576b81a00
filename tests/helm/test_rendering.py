"""What the chart renders, by both majors of helm, for every values file."""

import kubernetes_validate
import pytest

from flyweight.server.cli import serve

# kubernetes-validate knows no custom resources; test_service_monitor.py and test_alert_rules.py do.
CUSTOM = {"ServiceMonitor", "PrometheusRule"}

CONFIG_MAP = ",repository.configMap.".join(
    ["repository.kind=configMap", "name=m", "items[0].key=k", "items[0].path=m/1/model.onnx"]
)


def one(objects, kind):
    (found,) = [item for item in objects if item["kind"] == kind]
    return found


def container(objects):
    (found,) = one(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def volumes_of(objects):
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]
    return {volume["name"]: volume for volume in pod["volumes"]}


def test_lint_finds_nothing(helm, values):
    done = helm("lint", "--strict", ".", *values)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


def test_every_object_fits_the_schemas_of_kubernetes(render, values):
    for item in render(*values):
        if item["kind"] not in CUSTOM:
            kubernetes_validate.validate(item, "1.32", strict=True)


def test_nothing_optional_is_rendered_by_default(render):
    kinds = sorted(item["kind"] for item in render())

    assert kinds == ["Deployment", "Pod", "Service", "ServiceAccount"]


def test_everything_optional_can_be_switched_on(render, claim):
    kinds = {item["kind"] for item in render(*claim)}

    assert kinds >= {
        "ConfigMap",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "PrometheusRule",
        "ServiceMonitor",
    }


def test_every_object_lies_in_the_release_namespace(render, claim):
    assert {item["metadata"]["namespace"] for item in render(*claim)} == {"models"}


def test_pods_meet_the_restricted_standard(render, values):
    """Kubernetes, Pod Security Standards, profile "restricted"."""
    for item in render(*values):
        if item["kind"] not in {"Deployment", "Pod"}:
            continue
        pod = item["spec"]["template"]["spec"] if item["kind"] == "Deployment" else item["spec"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for box in pod["containers"]:
            assert box["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }
            assert "memory" in box["resources"]["limits"]


def test_labels_that_select_pods_are_on_the_pods(render, claim):
    objects = render(*claim)
    labels = one(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]

    assert one(objects, "Service")["spec"]["selector"].items() <= labels.items()
    assert one(objects, "Deployment")["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert labels["team"] == "vision"
    assert labels["tier"] == "inference"


def test_the_chart_version_is_not_on_the_pods(render):
    """Or every new version of the chart would restart every server."""
    labels = one(render(), "Deployment")["spec"]["template"]["metadata"]["labels"]

    assert "helm.sh/chart" not in labels


@pytest.mark.parametrize(("delay", "drain", "grace"), [("0", "30", 40), ("5", "30", 45), ("2.5", "60.5", 74)])
def test_the_grace_period_covers_delay_and_drain(render, delay, drain, grace):
    objects = render("--set-json", f'server={{"shutdownDelaySeconds": {delay}, "drainSeconds": {drain}}}')
    pod = one(objects, "Deployment")["spec"]["template"]["spec"]

    assert pod["terminationGracePeriodSeconds"] == grace
    assert {f"--shutdown-delay-seconds={delay}", f"--drain-seconds={drain}"} <= set(
        container(objects)["args"]
    )


def test_values_reach_the_command_line(render, claim):
    args = container(render(*claim))["args"]

    assert "--max-in-flight=10000" in args
    assert "--threads=2" in args
    assert args[-1] == "--poll-seconds=2"


# Unlike the server's own: it is reached over a network, through balancers, and its log is read by machines.
CHART_DEFAULTS = {
    "host": "0.0.0.0",
    "metrics_host": "0.0.0.0",
    "allow_control": False,
    "upload_megabytes": 0,
    "log_format": "json",
    "shutdown_delay_seconds": 5.0,
    "max_connection_age_seconds": 300.0,
    "max_connection_age_grace_seconds": 0.0,
}


def test_defaults_are_the_servers_but_for_those_with_a_reason(render, tmp_path):
    command, _, *arguments = container(render())["args"]

    chart = serve.make_context(command, [str(tmp_path), *arguments]).params
    server = serve.make_context("serve", [str(tmp_path)]).params

    assert {name: value for name, value in chart.items() if value != server[name]} == CHART_DEFAULTS


def test_every_option_of_the_server_is_a_value_or_left_out_for_a_reason(render, claim):
    """A new option is to be thought of here too."""
    left_out = {
        "-h": "help",
        "--watch": "polling stays beside it",
        "--shared-memory": "pods share no /dev/shm with their callers",
        "--transport": "the wire is not complete",
    }
    rendered = " ".join(
        container(render(*claim, "--set", "server.sessionEntries.a=b,tls.clientCertificates=true"))["args"]
    )

    missing = {
        option.opts[0]
        for option in serve.params
        if option.opts[0].startswith("-")
        and not any(name in rendered for name in (*option.opts, *option.secondary_opts))
    }

    assert missing <= left_out.keys()


def test_what_may_be_written_to_is_a_volume(render, claim):
    """The root is read-only: folders for uploads, traces and temporary files are the pod's own."""
    objects = render(*claim)
    volumes = volumes_of(objects)
    writable = {each["name"] for each in container(objects)["volumeMounts"] if not each.get("readOnly")}

    assert writable == {"repository", "tmp", "uploads", "traces"}
    assert volumes["uploads"]["emptyDir"] == {"sizeLimit": "2112Mi"}
    assert volumes["traces"]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert volumes["repository"]["persistentVolumeClaim"]["readOnly"] is False


def test_secrets_are_mounted_as_folders_so_that_changes_arrive(render, claim):
    """Kubernetes never updates what is mounted by subPath."""
    objects = render(*claim)
    volumes = volumes_of(objects)
    mounts = {each["name"]: each for each in container(objects)["volumeMounts"]}

    assert volumes["access"]["secret"] == {"secretName": "callers"}
    assert volumes["tls"]["secret"] == {"secretName": "flyweight-tls"}
    assert all("subPath" not in mounts[name] and mounts[name]["readOnly"] for name in ("access", "tls"))
    assert "--access=/access/access.yaml" in container(objects)["args"]


def test_the_server_knows_its_arguments(render, values, tmp_path):
    """`flyweight serve` itself parses them; only the paths are replaced, for they must exist."""
    (tmp_path / "file").touch()
    found = {"/models": str(tmp_path)} | {
        f"--{name}": f"--{name}={tmp_path / 'file'}"
        for name in ("tls-cert", "tls-key", "tls-client-ca", "access")
    }
    command, *arguments = container(render(*values))["args"]

    parsed = serve.make_context(command, [found.get(item.split("=")[0], item) for item in arguments])

    assert parsed.params["port"] == 8001
    assert parsed.params["metrics_port"] == 8002


def test_probes_ask_for_grpc_health(render):
    box = container(render())

    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert box[probe]["grpc"] == {"port": 8001}


def test_with_tls_probes_ask_the_metrics_port(render):
    """The kubelet's gRPC probe speaks no TLS. Live is told from ready: who drains is not to be killed."""
    box = container(render("--set", "tls.enabled=true,tls.existingSecret=s"))
    paths = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz"}

    for probe, path in paths.items():
        assert box[probe]["httpGet"] == {"path": path, "port": "metrics"}
        assert "grpc" not in box[probe]
    assert "--tls-cert=/tls/tls.crt" in box["args"]


@pytest.mark.parametrize(
    ("sets", "source"),
    [
        ("repository.kind=emptyDir", {"emptyDir": {}}),
        ("repository.kind=emptyDir,repository.sizeLimit=2Gi", {"emptyDir": {"sizeLimit": "2Gi"}}),
        (
            "repository.kind=existingClaim,repository.existingClaim=c",
            {"persistentVolumeClaim": {"claimName": "c", "readOnly": True}},
        ),
        (
            "repository.kind=hostPath,repository.hostPath=/srv",
            {"hostPath": {"path": "/srv", "type": "Directory"}},
        ),
        (
            CONFIG_MAP,
            {"configMap": {"name": "m", "items": [{"key": "k", "path": "m/1/model.onnx"}]}},
        ),
    ],
)
def test_the_repository_is_the_volume_that_was_asked_for(render, sets, source):
    objects = render("--set", sets)
    (volume,) = [
        volume
        for volume in one(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
        if volume["name"] == "repository"
    ]
    (mount,) = [mount for mount in container(objects)["volumeMounts"] if mount["name"] == "repository"]

    assert volume == {"name": "repository", **source}
    assert mount == {"name": "repository", "mountPath": "/models", "readOnly": True}


def test_with_autoscaling_the_deployment_says_no_replicas(render, claim):
    assert "replicas" not in one(render(*claim), "Deployment")["spec"]


def test_a_digest_wins_over_the_tag(render, claim):
    assert container(render(*claim))["image"] == "registry.example/flyweight@sha256:" + "0" * 64


def test_the_dashboards_arrive_whole(render, chart, claim):
    config = one(render(*claim), "ConfigMap")

    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert {name: text.strip() for name, text in config["data"].items()} == {
        f"flyweight-{path.name}": path.read_text(encoding="utf-8").strip()
        for path in (chart / "dashboards").glob("*.json")
    }
