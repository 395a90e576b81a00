import pytest
from prometheus_client import CollectorRegistry, generate_latest

from flyweight.server.errors import Code
from flyweight.server.metrics.requests import RequestMetrics
from flyweight.server.rpc.records import Answerer, Record, Rejection

INT8 = Answerer("tiny", "int8", "candidate")
WHO = {"model": "tiny", "variant": "int8", "role": "candidate"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def metrics(registry: CollectorRegistry) -> RequestMetrics:
    return RequestMetrics(registry)


def succeeded(**times: float) -> Record:
    return Record(answerer=INT8, rows=3, **times)  # type: ignore[arg-type]


def test_a_success_is_counted_once_with_its_rows_and_every_stage(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.record(
        succeeded(decode_seconds=1, queue_seconds=2, run_seconds=3, encode_seconds=4, total_seconds=9)
    )
    assert registry.get_sample_value("flyweight_requests_total", WHO | {"code": "OK"}) == 1
    sums = {
        stage: registry.get_sample_value("flyweight_request_stage_seconds_sum", WHO | {"stage": stage})
        for stage in ("decode", "queue", "run", "encode", "total")
    }
    assert sums == {"decode": 1, "queue": 2, "run": 3, "encode": 4, "total": 9}
    assert registry.get_sample_value("flyweight_request_rows_sum", WHO) == 3


@pytest.mark.parametrize(
    ("seconds", "below", "at_or_above"),
    [(0.0, None, "2.5e-05"), (0.001, "0.0005", "0.001"), (0.0011, "0.001", "0.0025"), (99.0, "10.0", "+Inf")],
)
def test_a_bucket_holds_what_is_at_most_its_bound(
    registry: CollectorRegistry, metrics: RequestMetrics, seconds: float, below: str | None, at_or_above: str
) -> None:
    metrics.record(succeeded(run_seconds=seconds))

    def bucket(bound: str) -> float | None:
        labels = WHO | {"stage": "run", "le": bound}
        return registry.get_sample_value("flyweight_request_stage_seconds_bucket", labels)

    assert below is None or bucket(below) == 0
    assert bucket(at_or_above) == bucket("+Inf") == 1


def test_a_failure_is_counted_by_its_code_and_leaves_the_times_alone(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.record(Record(answerer=INT8, code=Code.INVALID_ARGUMENT, total_seconds=1))
    assert registry.get_sample_value("flyweight_requests_total", WHO | {"code": "INVALID_ARGUMENT"}) == 1
    assert (
        registry.get_sample_value("flyweight_request_stage_seconds_count", WHO | {"stage": "total"}) is None
    )


def test_a_rejection_is_counted_by_its_reason(registry: CollectorRegistry, metrics: RequestMetrics) -> None:
    metrics.expect("tiny")
    full = {"model": "tiny", "reason": "queue_full"}
    assert registry.get_sample_value("flyweight_requests_rejected_total", full) == 0
    metrics.record(
        Record(answerer=Answerer("tiny"), code=Code.RESOURCE_EXHAUSTED, rejection=Rejection.QUEUE_FULL)
    )
    assert registry.get_sample_value("flyweight_requests_rejected_total", full) == 1
    nobody = {"model": "tiny", "variant": "", "role": "", "code": "RESOURCE_EXHAUSTED"}
    assert registry.get_sample_value("flyweight_requests_total", nobody) == 1


def test_requests_in_flight_go_up_and_down_and_away(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.begin(INT8)
    metrics.begin(INT8)
    metrics.end(INT8)
    assert registry.get_sample_value("flyweight_requests_in_flight", WHO) == 1
    metrics.end(INT8)
    metrics.record(succeeded())
    metrics.forget("tiny", "int8")
    assert registry.get_sample_value("flyweight_requests_in_flight", WHO) is None
    assert registry.get_sample_value("flyweight_requests_total", WHO | {"code": "OK"}) == 1


def test_names_and_types_are_the_documented_ones(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.record(succeeded())
    types = {
        line.split()[2]: line.split()[3]
        for line in generate_latest(registry).decode().splitlines()
        if line.startswith("# TYPE")
    }
    assert types == {
        "flyweight_requests_total": "counter",
        "flyweight_request_stage_seconds": "histogram",
        "flyweight_request_rows": "histogram",
        "flyweight_requests_in_flight": "gauge",
        "flyweight_requests_rejected_total": "counter",
    }
