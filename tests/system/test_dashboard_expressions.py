"""A real Prometheus scrapes a real server under traffic, and each expression of the dashboards gives data."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flyweight.client import Client, ClientError, RetryPolicy, Settings

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = sorted((ROOT / "helm" / "flyweight" / "dashboards").glob("*.json"))
DEADLINE_SECONDS = 60
READY = re.compile(r"flyweight ready grpc=(?P<grpc>\S+) metrics=(?P<metrics>\S+)")

pytestmark = pytest.mark.system


def _panels(dashboard):
    for panel in dashboard["panels"]:
        yield panel
        yield from panel.get("panels", [])


def _expressions():
    """Give every expression of every dashboard, once, named by the panel or annotation that shows it."""
    found = {}
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text(encoding="utf-8"))
        for panel in _panels(dashboard):
            for target in panel.get("targets", []):
                found.setdefault(target["expr"], f"{path.stem}: {panel['title']} {target['refId']}")
        for annotation in dashboard["annotations"]["list"]:
            if "expr" in annotation:
                found.setdefault(annotation["expr"], f"{path.stem}: {annotation['name']}")
    return [pytest.param(expression, id=name) for expression, name in found.items()]


def _variables():
    """Give every label_values(metric, label) that fills a variable."""
    return [
        pytest.param(variable["definition"], id=f"{path.stem}: {variable['name']}")
        for path in DASHBOARDS
        for variable in json.loads(path.read_text(encoding="utf-8"))["templating"]["list"]
        if variable["type"] == "query"
    ]


def _substitute(expression):
    """Put in what Grafana would: all variants of the model that gets the traffic."""
    values = {"$__rate_interval": "5s", "$variant": ".+", "$model": "tiny"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"no value for a variable in {expression}"
    return expression


def _fetch(url: str, **query: str) -> str:
    address = f"{url}?{urllib.parse.urlencode(query)}" if query else url
    with urllib.request.urlopen(address, timeout=10) as reply:
        return reply.read().decode()


def _eventually(probe: Callable[[], object], what: str) -> object:
    """Return the first true answer of `probe`; fails when none comes before the deadline."""
    until = time.monotonic() + DEADLINE_SECONDS
    nap = threading.Event()
    while time.monotonic() < until:
        with suppress(OSError):
            if answer := probe():
                return answer
        nap.wait(0.2)
    pytest.fail(f"{what} within {DEADLINE_SECONDS} s")


@contextmanager
def _process(command: list[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """Run a program until the block ends; its standard error goes to `log`."""
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


def _write_variant(repository: Path, *variants: str) -> None:
    script = ROOT / "tests" / "image" / "tiny_repository.py"
    subprocess.run([sys.executable, str(script), str(repository), "tiny", *variants], check=True, timeout=60)


def _write_traffic(repository: Path, text: str) -> None:
    hidden = repository / "tiny" / ".traffic.yaml.new"
    hidden.write_text(text, encoding="utf-8")
    hidden.rename(hidden.with_name("traffic.yaml"))


def _keep_asking(
    address: str, stop: threading.Event, inputs: dict[str, np.ndarray], variant: str | None, step: float
) -> None:
    # One attempt: a refused request is to be seen as refused.
    with Client(address, Settings(timeout_seconds=5, retry=RetryPolicy(max_attempts=1))) as client:
        while not stop.is_set():
            with suppress(ClientError):
                client.predict("tiny", inputs, variant=variant)
            inputs = {name: values + np.float32(step) for name, values in inputs.items()}
            stop.wait(0.005)


@contextmanager
def _traffic(address: str) -> Iterator[None]:
    """Ask from more callers than the server admits, some of them wrongly, until the block ends."""
    stop = threading.Event()
    good = {"x": np.ones((4, 16), np.float32)}
    wrong = {"x": np.ones((4, 17), np.float32)}
    # Some ask for what the cache has, and others for what it cannot have.
    asked = [(good, None, 0.0)] * 2 + [(good, None, 0.001)] * 4
    asked += [(wrong, "baseline", 0.0), (wrong, "int8", 0.0)]
    threads = [threading.Thread(target=_keep_asking, args=(address, stop, *each)) for each in asked]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout=30)


@contextmanager
def _prometheus(binary: str, folder: Path, target: str) -> Iterator[str]:
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [{"job_name": "flyweight", "static_configs": [{"targets": [target]}]}],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [
        binary,
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
    ]
    with _process(command, folder / "prometheus.log"):
        _eventually(lambda: _fetch(f"http://{address}/-/ready"), "Prometheus was not ready")
        yield f"http://{address}"


def _provoke(repository: Path, metrics: str) -> None:
    """Make happen what seldom does: a variant comes and goes, a traffic.yaml is refused."""
    plan = "split: {baseline: 60, int8: 40}\n"
    _write_variant(repository, "extra")
    extra = 'flyweight_loads_total{model="tiny",outcome="ok",variant="extra"}'
    _eventually(lambda: extra in _sorted_labels(_fetch(metrics)), "the variant 'extra' was not loaded")
    shutil.rmtree(repository / "tiny" / "extra")
    _write_traffic(repository, "split: {baseline: 60, nobody: 40}\n")
    refused = 'flyweight_traffic_plan_errors_total{model="tiny"}'
    _eventually(lambda: refused in _fetch(metrics), "the faulty traffic.yaml was not counted")
    _write_traffic(repository, plan)


def _sorted_labels(text: str) -> str:
    """Return metrics with the labels of each sample in order of their names."""
    return re.sub(
        r"\{(.*)\}", lambda labels: "{" + ",".join(sorted(re.findall(r'\w+="[^"]*"', labels[1]))) + "}", text
    )


@dataclass(frozen=True, slots=True)
class Stage:
    """A server under traffic (its metrics' address) and the Prometheus that watches it (its API's)."""

    metrics: str
    prometheus: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    binary = shutil.which("prometheus")
    if binary is None:
        pytest.skip("prometheus is not on PATH (Debian: apt install prometheus)")
    folder = tmp_path_factory.mktemp("dashboards")
    repository = folder / "repository"
    _write_variant(repository, "baseline", "int8")
    _write_traffic(repository, "split: {baseline: 60, int8: 40}\n")
    (repository / "tiny" / "config.pbtxt").write_text("response_cache { enable: true }\n", encoding="utf-8")
    serve = [str(Path(sys.executable).with_name("flyweight")), "serve", str(repository)]
    options = ["--port=0", "--metrics-port=0", "--poll-seconds=0.2", "--max-in-flight=2", "--threads=1"]
    # Where each variant has a process, there is data for every panel.
    options += ["--runtime=process"]
    with _process([*serve, *options, "--drain-seconds=5"], folder / "server.log") as server:
        assert server.stdout is not None
        ready = READY.match(server.stdout.readline())
        assert ready, (folder / "server.log").read_text(encoding="utf-8")
        target = ready["metrics"].removeprefix("http://").removesuffix("/metrics")
        with _prometheus(binary, folder, target) as prometheus, _traffic(ready["grpc"]):
            _provoke(repository, ready["metrics"])
            yield Stage(ready["metrics"], prometheus)


@pytest.mark.parametrize("expression", _expressions())
def test_an_expression_gives_data(stage, expression):
    query = _substitute(expression)

    def numbers() -> list[str]:
        result = json.loads(_fetch(f"{stage.prometheus}/api/v1/query", query=query))["data"]["result"]
        return [series["value"][1] for series in result if series["value"][1] not in {"NaN", "+Inf", "-Inf"}]

    _eventually(numbers, f"no data from {query}")


@pytest.mark.parametrize("definition", _variables())
def test_a_variable_has_values(stage, definition):
    parts = re.fullmatch(r"label_values\((?P<metric>.+), (?P<label>\w+)\)", _substitute(definition))
    assert parts
    address = f"{stage.prometheus}/api/v1/label/{parts['label']}/values"

    _eventually(
        lambda: json.loads(_fetch(address, **{"match[]": parts["metric"]}))["data"],
        f"no values from {definition}",
    )


def test_promtool_finds_nothing_wrong_with_the_metrics(stage):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on PATH (Debian: apt install prometheus)")
    # Triton's names are what they are, duration_us among them; dashboards made for it ask for those.
    ours = [line for line in _fetch(stage.metrics).splitlines(keepends=True) if "nv_" not in line]
    text = "".join(ours)

    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, check=False, capture_output=True, text=True, timeout=30
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
