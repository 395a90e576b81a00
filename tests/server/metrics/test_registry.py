import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.manifest.v1.manifest_pb2 import Footprint, VariantManifest
from flyweight.server.errors import StartError
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import LoadedVariant, RoutingTable, ServedModel
from flyweight.server.metrics import Endpoint, Metrics, Probes
from flyweight.server.metrics.process import ProcessMemory
from flyweight.server.rpc.records import Answerer
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.traffic import Plan, Reason

PLAN = Plan("baseline", (("baseline", 0.75), ("int8", 0.25)), origin=Reason.SPLIT)


def table_of(*names: str, plan: Plan = PLAN) -> RoutingTable:
    variants: dict[str, LoadedVariant] = {}
    for name in names:
        runtime = FakeRuntime()
        manifest = VariantManifest(footprint=Footprint(pss_bytes=500)) if name == "int8" else None
        variants[name] = LoadedVariant(
            "tiny", name, runtime.signature, ModelConfig(), manifest, runtime, Leases(name)
        )
    return RoutingTable(MappingProxyType({"tiny": ServedModel("tiny", MappingProxyType(variants), plan)}))


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"flyweight_{name}", labels)


def int8(**more: str) -> Mapping[str, str]:
    return {"model": "tiny", "variant": "int8", **more}


def test_the_table_is_shown(metrics: Metrics) -> None:
    metrics.on_table(table_of("baseline", "int8"))
    assert value(metrics, "traffic_weight_ratio", **int8(role="candidate")) == 0.25
    assert value(metrics, "variant_ready", **int8()) == 1
    assert value(metrics, "variant_file_bytes", **int8()) == 100
    assert value(metrics, "variant_memory_bytes", **int8(kind="load_pss")) == 1000
    assert value(metrics, "variant_memory_bytes", **int8(kind="validated_pss")) == 500
    assert (
        value(metrics, "variant_memory_bytes", model="tiny", variant="baseline", kind="validated_pss") is None
    )


def test_a_new_role_replaces_the_old_one(metrics: Metrics) -> None:
    metrics.on_table(table_of("baseline", "int8"))
    metrics.on_table(table_of("baseline", "int8", plan=replace(PLAN, baseline="int8")))
    assert value(metrics, "traffic_weight_ratio", **int8(role="baseline")) == 0.25
    assert value(metrics, "traffic_weight_ratio", **int8(role="candidate")) is None


def test_a_variant_that_is_gone_leaves_its_counters_only(metrics: Metrics) -> None:
    table = table_of("baseline", "int8")
    metrics.on_load(table.models["tiny"].variants["int8"], 0.2)
    metrics.on_table(table)
    metrics.requests.begin(Answerer("tiny", "int8", "candidate"))
    metrics.requests.end(Answerer("tiny", "int8", "candidate"))
    metrics.on_table(table_of("baseline"))
    metrics.on_unload("tiny", "int8")
    shown = generate_latest(metrics.registry).decode()
    gauges = [line for line in shown.splitlines() if 'variant="int8"' in line]
    assert {line.partition("{")[0] for line in gauges} == {
        "flyweight_loads_total",
        "flyweight_unloads_total",
        "flyweight_load_seconds_bucket",
        "flyweight_load_seconds_count",
        "flyweight_load_seconds_sum",
        "flyweight_swaps_total",
        "flyweight_drain_seconds_bucket",
        "flyweight_drain_seconds_count",
        "flyweight_drain_seconds_sum",
    }


def test_a_replaced_variant_keeps_its_gauges(metrics: Metrics) -> None:
    metrics.on_table(table_of("baseline", "int8"))
    metrics.requests.begin(Answerer("tiny", "int8", "candidate"))
    metrics.on_unload("tiny", "int8")
    assert value(metrics, "requests_in_flight", **int8(role="candidate")) == 1


def test_the_repositorys_events_are_counted(metrics: Metrics) -> None:
    observer = metrics
    observer.on_scan(ok=True)
    observer.on_scan(ok=False)
    observer.on_load_failed("tiny", "int8", "Its digest is wrong.", 0.1)
    observer.on_plan_error("tiny", "It does not add up.")
    assert value(metrics, "repository_scans_total", outcome="ok") == 1
    assert value(metrics, "repository_scans_total", outcome="failed") == 1
    assert value(metrics, "loads_total", **int8(outcome="failed")) == 1
    assert value(metrics, "traffic_plan_errors_total", model="tiny") == 1


def test_tells_the_versions_and_the_memory_of_the_process(metrics: Metrics) -> None:
    shown = generate_latest(metrics.registry).decode()
    assert 'flyweight_build_info{onnxruntime="1.' in shown
    pss, uss, peak = (
        value(metrics, "process_memory_bytes", kind=kind) for kind in ("pss", "uss", "peak_rss")
    )
    assert pss is not None
    assert uss is not None
    assert peak is not None
    assert 1 << 20 < uss <= pss
    assert peak > uss


def test_memory_is_read_in_bytes_from_proc(tmp_path: Path) -> None:
    (tmp_path / "smaps_rollup").write_text(
        "55d0-7ffc ---p 00000000 00:00 0  [rollup]\nRss: 900 kB\nPss: 700 kB\nPrivate_Clean: 1 kB\n"
        "Private_Dirty: 2 kB\n"
    )
    (tmp_path / "status").write_text("Name:\tpython\nVmHWM:\t 950 kB\nThreads:\t3\n")
    registry = CollectorRegistry()
    registry.register(ProcessMemory(tmp_path))
    found = {
        kind: registry.get_sample_value("flyweight_process_memory_bytes", {"kind": kind})
        for kind in ("pss", "uss", "peak_rss")
    }
    assert found == {"pss": 700 * 1024, "uss": 3 * 1024, "peak_rss": 950 * 1024}


def test_a_kernel_that_tells_nothing_is_no_failure(tmp_path: Path) -> None:
    registry = CollectorRegistry()
    registry.register(ProcessMemory(tmp_path / "nowhere"))
    assert registry.get_sample_value("flyweight_process_memory_bytes", {"kind": "pss"}) is None


def test_two_servers_can_live_in_one_process() -> None:
    Metrics()
    Metrics()


def test_the_endpoint_serves_and_ends(metrics: Metrics) -> None:
    endpoint = Endpoint(metrics.registry, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{endpoint.port}/metrics"
    with urllib.request.urlopen(url, timeout=30) as reply:
        assert b"flyweight_build_info" in reply.read()
    with pytest.raises(StartError, match=f"127.0.0.1:{endpoint.port} .*--metrics-port"):
        Endpoint(metrics.registry, "127.0.0.1", endpoint.port)
    endpoint.close()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=30)


def status_of(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_probes_are_told_the_truth_over_plain_http(metrics: Metrics) -> None:
    truth = {"live": True, "ready": False}
    probes = Probes(lambda: truth["live"], lambda: truth["ready"])
    endpoint = Endpoint(metrics.registry, "127.0.0.1", 0, probes)
    url = f"http://127.0.0.1:{endpoint.port}"
    try:
        assert (status_of(f"{url}/healthz"), status_of(f"{url}/readyz")) == (200, 503)
        truth.update(live=False, ready=True)
        assert (status_of(f"{url}/healthz?a=b"), status_of(f"{url}/readyz")) == (503, 200)
        assert status_of(f"{url}/metrics") == 200
    finally:
        endpoint.close()


def test_a_request_that_outlives_two_variants_of_its_name_ends_like_any_other(metrics: Metrics) -> None:
    """Deleted, published again and deleted: the second may be closed while the first still answers."""
    slow = Answerer("tiny", "int8", "candidate")
    metrics.on_table(table_of("baseline", "int8"))
    metrics.requests.begin(slow)
    metrics.on_table(table_of("baseline"))
    metrics.on_unload("tiny", "int8")
    assert value(metrics, "requests_in_flight", **int8(role="candidate")) == 1
    metrics.requests.end(slow)
    metrics.on_unload("tiny", "int8")
    assert value(metrics, "requests_in_flight", **int8(role="candidate")) is None


def test_a_host_that_is_no_name_is_told() -> None:
    with pytest.raises(StartError, match=r"^\.\.:0 cannot be listened on for metrics"):
        Endpoint(CollectorRegistry(), "..", 0)
