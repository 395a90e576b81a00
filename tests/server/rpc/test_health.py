"""grpc.health.v1 over a real socket: what probes and balancers are told, and when."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc import health as health_module
from flyweight.server.rpc.health_messages import HealthListResponse

PATIENCE_SECONDS = 30
WATCH = "/grpc.health.v1.Health/Watch"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


def check(served: Any, name: str) -> int:
    stub = health_pb2_grpc.HealthStub(served.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_SECONDS).status


def watch(served: Any, name: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(served.channel)
    return stub.Watch(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_SECONDS)


def test_health_follows_the_table_and_the_shutdown(served: Any) -> None:
    assert check(served, "") == NOT_SERVING
    served.health.on_table(served.bench.models.table)
    served.health.serve()
    assert [check(served, name) for name in ("", "tiny", "slow")] == [SERVING, SERVING, NOT_SERVING]
    with pytest.raises(grpc.RpcError) as caught:
        check(served, "nothing")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND  # type: ignore[attr-defined]
    served.health.on_table(RoutingTable())
    assert [check(served, name) for name in ("", "tiny")] == [SERVING, NOT_SERVING]
    served.health.stop()
    assert check(served, "") == NOT_SERVING


def test_everything_is_listed(served: Any) -> None:
    served.health.on_table(served.bench.models.table)
    served.health.serve()
    listed = HealthListResponse.FromString(served.call("/grpc.health.v1.Health/List")).statuses
    assert {name: each.status for name, each in listed.items()} == {
        "": SERVING,
        "tiny": SERVING,
        "slow": NOT_SERVING,
    }


def test_health_can_be_watched_by_more_callers_than_there_are_threads(served: Any) -> None:
    watches = [watch(served) for _ in range(40)]
    assert [next(each).status for each in watches] == [NOT_SERVING] * 40
    served.health.serve()
    assert [next(each).status for each in watches] == [SERVING] * 40


def test_a_watch_hears_the_shutdown(served: Any) -> None:
    served.health.on_table(served.bench.models.table)
    served.health.serve()
    overall, model = watch(served), watch(served, "tiny")
    assert [next(overall).status, next(model).status] == [SERVING, SERVING]
    served.health.stop()
    assert [next(overall).status, next(model).status] == [NOT_SERVING, NOT_SERVING]


def test_nothing_is_told_after_the_shutdown(served: Any) -> None:
    served.health.serve()
    served.health.stop()
    served.health.serve()
    served.health.on_table(served.bench.models.table)
    assert check(served, "") == NOT_SERVING


def test_a_model_that_is_not_there_yet_can_be_watched(served: Any) -> None:
    early = watch(served, "tiny")
    assert next(early).status == SERVICE_UNKNOWN
    served.health.on_table(served.bench.models.table)
    assert next(early).status == SERVING


def test_only_changes_are_told(served: Any) -> None:
    overall = watch(served)
    assert next(overall).status == NOT_SERVING
    served.health.serve()
    served.health.serve()
    served.health.on_table(served.bench.models.table)
    served.health.stop()
    assert [next(overall).status, next(overall).status] == [SERVING, NOT_SERVING]


def test_who_goes_away_is_watched_for_no_longer(served: Any, poll: Callable[..., None]) -> None:
    watches = [watch(served) for _ in range(5)]
    for each in watches:
        next(each)
    assert len(served.health._watches) == 5
    for each in watches:
        each.cancel()
    poll(lambda: not served.health._watches)
    poll(lambda: not served.carrier._open)


def test_no_more_may_watch_than_there_is_room_for(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_MOST_WATCHES", 1)
    first = watch(served)
    next(first)
    with pytest.raises(grpc.RpcError) as caught:
        next(watch(served))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    served.health.serve()
    assert next(first).status == SERVING


@pytest.mark.parametrize(
    ("bodies", "code"),
    [([b"\xff\xff"], grpc.StatusCode.INVALID_ARGUMENT), ([], grpc.StatusCode.UNIMPLEMENTED)],
    ids=["garbage", "nothing"],
)
def test_a_watch_of_garbage_or_of_nothing_ends(
    served: Any, bodies: list[bytes], code: grpc.StatusCode, poll: Callable[..., None]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(served.stream(WATCH, iter(bodies)))
    assert caught.value.code() is code  # type: ignore[attr-defined]
    poll(lambda: not served.health._watches)
