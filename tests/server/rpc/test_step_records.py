"""Steps of ensembles in the statistics of the models that answer them."""

from typing import TYPE_CHECKING, Any

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.server.errors import Code, RunFailed
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.statistics import Statistics
from flyweight.server.rpc.step_records import StepRecords
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.runtime.ensemble import StepRun

if TYPE_CHECKING:
    from flyweight.server.rpc.records import Answerer

STEP = StepRun("tiny", "int8", rows=4, seconds=0.5, queue_seconds=0.125, run_seconds=0.25)


def test_a_step_is_a_request_and_a_run_of_the_model_that_answers_it(bench: Any) -> None:
    """Source: Triton's ensembles, whose steps its statistics count for the composing models."""
    tallies = Tallies()
    StepRecords(bench.models, tallies).record(STEP)
    request = pb.ModelStatisticsRequest(name="tiny", version="int8")
    body = Statistics(bench.models, tallies).model_statistics(request.SerializeToString(), Call())
    (told,) = pb.ModelStatisticsResponse.FromString(body).model_stats
    assert (told.inference_count, told.execution_count) == (4, 1)
    stats = told.inference_stats
    assert (stats.success.count, stats.success.ns) == (1, 500_000_000)
    assert (stats.queue.count, stats.queue.ns) == (1, 125_000_000)
    assert (stats.compute_infer.count, stats.compute_infer.ns) == (1, 250_000_000)
    assert [batch.batch_size for batch in told.batch_stats] == [4]


def test_a_step_that_failed_is_a_failure_of_its_model_and_no_run(bench: Any) -> None:
    tallies = Tallies()
    StepRecords(bench.models, tallies).record(STEP._replace(error=RunFailed("it broke")))
    found = tallies.totals()["tiny", "int8"]
    assert (found.success, found.runs, found.failed_seconds) == (0, 0, 0.5)
    assert found.failures == {Code.INTERNAL: 1}


def test_a_step_has_the_role_that_its_variant_has(bench: Any) -> None:
    seen: list[Answerer] = []
    tallies = Tallies()
    tallies.record = lambda record: seen.append(record.answerer)  # type: ignore[method-assign]
    for variant in ("baseline", "int8"):
        StepRecords(bench.models, tallies).record(STEP._replace(variant=variant))
    assert [answerer.role for answerer in seen] == ["baseline", "candidate"]


def test_a_step_of_a_model_that_has_gone_is_counted_nowhere(bench: Any) -> None:
    tallies = Tallies()
    StepRecords(bench.models, tallies).record(STEP._replace(model="gone"))
    assert not tallies.totals()


def test_the_servers_own_methods_count_steps(bench: Any) -> None:
    (listener,) = bench.models.step_listeners
    listener(STEP)
    request = pb.ModelStatisticsRequest(name="tiny", version="int8")
    body = bench.handlers["ModelStatistics"](request.SerializeToString(), Call())
    assert pb.ModelStatisticsResponse.FromString(body).model_stats[0].inference_count == 4
