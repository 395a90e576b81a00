"""How many streams may be open, counted and caused."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelStreamInferResponse
from flyweight.server.errors import QueueFull
from flyweight.server.rpc.stream_places import StreamPlaces
from flyweight.server.settings import ConnectionSettings, ServerSettings

INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
PATIENCE_SECONDS = 30


def test_places_are_of_each_method_for_itself_and_come_back() -> None:
    places = StreamPlaces(2)
    places.enter(INFER)
    places.enter(INFER)
    with pytest.raises(QueueFull, match=r"has its 2 streams \(--max-streams\) of /inference"):
        places.enter(INFER)
    places.enter(WATCH)
    places.leave(INFER)
    places.enter(INFER)


class Talk:
    """A stream whose requests are sent when the test says so."""

    def __init__(self, served: Any, body: bytes) -> None:
        self._over = Event()

        def bodies() -> Iterator[bytes]:
            yield body
            self._over.wait(PATIENCE_SECONDS)

        self._answers = served.stream(INFER, bodies())

    def hear(self) -> str:
        """Return what the first answer complains of: nothing, when it is an answer."""
        return ModelStreamInferResponse.FromString(next(self._answers)).error_message

    def end(self) -> None:
        self._over.set()
        assert list(self._answers) == []


def test_a_stream_too_many_is_refused_until_another_ends(
    serve: Callable[..., Any], make_request: Callable[..., Any], poll: Callable[[Callable[[], bool]], None]
) -> None:
    settings = ServerSettings(
        Path("unused"), port=0, max_in_flight=4, connections=ConnectionSettings(max_streams=2)
    )
    served = serve(settings)
    body = make_request().SerializeToString()
    talks = [Talk(served, body) for _ in range(2)]
    assert [talk.hear() for talk in talks] == ["", ""]
    refused = Talk(served, body)
    with pytest.raises(grpc.RpcError) as caught:
        refused.hear()
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert "--max-streams" in caught.value.details()  # type: ignore[attr-defined]
    assert dict(caught.value.trailing_metadata())["grpc-retry-pushback-ms"] == "100"  # type: ignore[attr-defined]
    talks[0].end()

    def takes_another() -> bool:
        try:
            talk = Talk(served, body)
            heard = talk.hear()
        except grpc.RpcError:
            return False
        talk.end()
        return heard == ""

    poll(takes_another)
    talks[1].end()
