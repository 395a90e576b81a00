"""ModelStatistics: counts that only grow, and by what was asked.

Source of all: Triton, protocol extensions, "Statistics Extension"; messages ModelStatistics, InferStatistics.
"""

import time
from typing import Any

import numpy as np
import pytest
from oip.cases import BEWILDERED, SILENCE, case, extension
from oip.requests import add_sub_request
from oip.survey import Survey
from oip.target import Target, eventually

from flyweight.protos.inference.grpc_service_pb2 import ModelStatisticsRequest

STATISTICS = extension("statistics")


def statistics(target: Target, name: str = "add_sub", version: str = "") -> Any:
    """Return the statistics of a model's only version."""
    asked = ModelStatisticsRequest(name=name, version=version)
    return target.call("ModelStatistics", asked).must_be_ok().model_stats[0]


def until_grown(target: Target, before: Any, what: str, by: int) -> Any:
    """Return the statistics once `what` has grown by `by`; servers count after they have answered."""

    def grown() -> bool:
        return bool(_path(statistics(target), what) - _path(before, what) >= by)

    eventually(grown, f"{what} grows by {by}")
    return statistics(target)


def _path(message: Any, path: str) -> int:
    for name in path.split("."):
        message = getattr(message, name)
    return int(message)


@case("statistics/counts", STATISTICS)
def test_answered_requests_are_counted(target: Target) -> None:
    """Three requests add three to inference_count and to success.count, and one to three executions.

    Source: Triton, "Statistics Extension", inference_count, execution_count.
    """
    before = statistics(target)
    for _ in range(3):
        target.infer(add_sub_request()).must_be_ok()
    after = until_grown(target, before, "inference_stats.success.count", 3)
    assert after.inference_stats.success.count - before.inference_stats.success.count == 3
    assert after.inference_count - before.inference_count == 3
    assert 1 <= after.execution_count - before.execution_count <= 3


@case("statistics/rows", STATISTICS)
def test_rows_are_counted_as_inferences(target: Target) -> None:
    """A request of five rows adds five to inference_count and one to execution_count.

    Source: Triton, "Statistics Extension": inference_count "will count each batch element".
    """
    before, five = statistics(target), np.ones((5, 4), "<f4")
    target.infer(add_sub_request(five, five)).must_be_ok()
    after = until_grown(target, before, "inference_stats.success.count", 1)
    assert (
        after.inference_count - before.inference_count,
        after.execution_count - before.execution_count,
    ) == (5, 1)


@case("statistics/failures", STATISTICS)
def test_refused_requests_are_no_inferences(target: Target) -> None:
    """A request that is refused adds nothing to inference_count and to success.count.

    Source: Triton, "Statistics Extension", success, fail.
    """
    before = statistics(target)
    target.infer(add_sub_request(np.ones((1, 3), "<f4"))).must_be_refused()
    target.infer(add_sub_request()).must_be_ok()
    after = until_grown(target, before, "inference_stats.success.count", 1)
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_count - before.inference_count == 1


@pytest.mark.parametrize("stage", ["success", "queue", "compute_input", "compute_infer", "compute_output"])
@case("statistics/durations", STATISTICS)
def test_durations_only_grow(target: Target, stage: str) -> None:
    """Each duration's count grows with the requests, and its nanoseconds never shrink.

    Source: Triton, "Statistics Extension", $duration_stat: cumulative.
    """
    before = statistics(target)
    target.infer(add_sub_request()).must_be_ok()
    after = until_grown(target, before, f"inference_stats.{stage}.count", 1)
    assert getattr(after.inference_stats, stage).ns >= getattr(before.inference_stats, stage).ns


@case("statistics/parts-within-whole", STATISTICS)
def test_the_parts_are_no_longer_than_the_whole(target: Target) -> None:
    """Queue and compute together take no more nanoseconds than success.

    Source: Triton, "Statistics Extension": success is the whole of the request.
    """
    target.infer(add_sub_request()).must_be_ok()
    found = statistics(target).inference_stats
    parts = (found.queue, found.compute_input, found.compute_infer, found.compute_output)
    assert sum(part.ns for part in parts) <= found.success.ns


@case("statistics/last-inference", STATISTICS)
def test_the_last_inference_has_a_time(target: Target) -> None:
    """last_inference is milliseconds since the epoch, and moves with the requests.

    Source: Triton, "Statistics Extension", last_inference.
    """
    before = statistics(target)
    target.infer(add_sub_request()).must_be_ok()
    after = until_grown(target, before, "inference_stats.success.count", 1)
    # A day: the server's clock may be another one.
    assert abs(after.last_inference / 1000 - time.time()) < 86_400
    assert after.last_inference >= before.last_inference


@case("statistics/batches", STATISTICS)
def test_batches_are_told_by_their_size(target: Target) -> None:
    """batch_stats have one entry for each size of a run, whose counts add up to execution_count.

    Source: Triton, "Statistics Extension", batch_stats.
    """
    target.infer(add_sub_request()).must_be_ok()
    eventually(lambda: bool(statistics(target).batch_stats), "batch_stats of a model that has run")
    found = statistics(target)
    sizes = [batch.batch_size for batch in found.batch_stats]
    assert len(set(sizes)) == len(sizes)
    assert sum(batch.compute_infer.count for batch in found.batch_stats) == found.execution_count


@case("statistics/all-models", STATISTICS)
def test_all_models_are_told_of_without_a_name(target: Target, server: Survey) -> None:
    """An empty name asks for all models.

    Source: Triton, "Statistics Extension": "If not specified all models".
    """
    found = target.call("ModelStatistics", ModelStatisticsRequest()).must_be_ok()
    assert server.models <= {each.name for each in found.model_stats}


@pytest.mark.parametrize(
    ("name", "version"),
    [
        pytest.param("no_such_model", "", id="unknown-model"),
        pytest.param("add_sub", "99", id="unknown-version"),
    ],
)
@case("statistics/refused", STATISTICS)
def test_statistics_of_nobody_are_refused(target: Target, name: str, version: str) -> None:
    """Statistics of what is not there are an error, and one that says what it is.

    Source: Triton, "Statistics Extension"; grpc/grpc, doc/statuscodes.md.
    """
    answer = target.call("ModelStatistics", ModelStatisticsRequest(name=name, version=version))
    answer.must_be_refused(never=SILENCE | BEWILDERED)
