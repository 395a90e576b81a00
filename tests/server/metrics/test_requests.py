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
        "flyweight_run_rows": "histogram",
        "flyweight_run_requests": "histogram",
        "flyweight_run_seconds": "histogram",
        "flyweight_response_cache_lookups_total": "counter",
    }


def test_a_run_is_counted_once_however_many_requests_shared_it(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    for leads in (True, False):
        record = succeeded(run_seconds=0.5)
        record.batch_rows, record.batch_requests, record.leads_run = 6, 2, leads
        metrics.record(record)
    found = {
        name: registry.get_sample_value(f"flyweight_run_{name}", WHO)
        for name in ("rows_count", "rows_sum", "requests_sum", "seconds_sum")
    }
    assert found == {"rows_count": 1, "rows_sum": 6, "requests_sum": 2, "seconds_sum": 0.5}


def test_a_run_that_failed_is_a_run_and_no_success(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.record(Record(answerer=INT8, code=Code.INTERNAL, batch_rows=1, batch_requests=1, leads_run=True))
    assert registry.get_sample_value("flyweight_run_rows_count", WHO) == 1
    assert registry.get_sample_value("flyweight_requests_total", WHO | {"code": "INTERNAL"}) == 1
    assert registry.get_sample_value("flyweight_requests_total", WHO | {"code": "OK"}) is None
    assert registry.get_sample_value("flyweight_request_rows_count", WHO) is None


@pytest.mark.parametrize(("hit", "outcome", "other"), [(True, "hit", "miss"), (False, "miss", "hit")])
def test_lookups_of_the_response_cache_are_counted(
    registry: CollectorRegistry, metrics: RequestMetrics, hit: bool, outcome: str, other: str
) -> None:
    record = succeeded()
    record.cache_hit = hit
    metrics.record(record)
    name = "flyweight_response_cache_lookups_total"
    assert registry.get_sample_value(name, WHO | {"outcome": outcome}) == 1
    assert registry.get_sample_value(name, WHO | {"outcome": other}) == 0


def test_a_variant_without_a_cache_has_no_lookups(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    metrics.record(succeeded())
    name = "flyweight_response_cache_lookups_total"
    assert registry.get_sample_value(name, WHO | {"outcome": "miss"}) is None


def test_what_is_dropped_begins_again_at_nothing(
    registry: CollectorRegistry, metrics: RequestMetrics
) -> None:
    for code in (Code.OK, Code.INTERNAL):
        metrics.record(Record(answerer=INT8, code=code))
        metrics.record(Record(answerer=INT8._replace(variant="baseline"), code=code))
    metrics.drop("tiny", "int8")
    shown = generate_latest(registry).decode()
    assert 'variant="int8"' not in shown
    assert 'variant="baseline"' in shown
    metrics.record(Record(answerer=INT8))
    assert registry.get_sample_value("flyweight_requests_total", WHO | {"code": "OK"}) == 1


def test_a_model_is_dropped_with_its_rejections(registry: CollectorRegistry, metrics: RequestMetrics) -> None:
    metrics.expect("tiny")
    metrics.record(Record(answerer=Answerer("tiny"), code=Code.NOT_FOUND))
    metrics.drop("tiny", "")
    assert 'model="tiny"' not in generate_latest(registry).decode()


def test_totals_are_of_a_variant_in_every_role_it_had(metrics: RequestMetrics) -> None:
    for role in ("baseline", "candidate"):
        record = succeeded(queue_seconds=1, run_seconds=2, total_seconds=4)
        record.answerer = INT8._replace(role=role)
        record.leads_run = True
        metrics.record(record)
    metrics.record(Record(answerer=INT8, code=Code.CANCELLED))
    totals = metrics.totals()["tiny", "int8"]
    assert (totals.success, totals.rows, totals.runs) == (2, 6, 2)
    assert totals.failures == {Code.CANCELLED: 1}
    assert (totals.seconds["queue"], totals.seconds["run"], totals.seconds["total"]) == (2, 4, 8)
