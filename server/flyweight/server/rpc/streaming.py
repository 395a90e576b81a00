"""ModelStreamInfer: any number of requests on one call, answered in the order in which they came.

A request that fails is answered by a message that says why, and the stream goes on (the proto's comment on
ModelStreamInferResponse.error_message).
"""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import ModelInferResponse, ModelStreamInferResponse
from flyweight.server.errors import QueueFull
from flyweight.server.rpc.call import Body, Call, Failure, Stream
from flyweight.server.rpc.fields import tag_of, varint
from flyweight.server.rpc.inference import Inference

# Requests of one stream under way at a time: enough to fill a batch. The next is read from the network when
# one of them is answered, so a caller that does not read its answers is not read either.
_MOST_UNDER_WAY: Final = 32
_INFER_RESPONSE: Final = tag_of(ModelStreamInferResponse.INFER_RESPONSE_FIELD_NUMBER)


class InferStreams:
    """Answers ModelStreamInfer by what answers ModelInfer."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def __call__(self, call: Call, stream: Stream) -> "InferStream":
        """Begin to answer a stream."""
        return InferStream(self._inference, call, stream)


class _Place:
    """One request's place in the order of answers.

    `body` is there once it is answered. `abandon` is what the request wants called if the stream ends before
    that: the place keeps it, and not the call, which may have millions of requests.
    """

    __slots__ = ("abandon", "body")

    def __init__(self) -> None:
        self.body: bytes | None = None
        self.abandon: Callable[[], None] | None = None

    def on_end(self, callback: Callable[[], None]) -> None:
        """Keep what the request wants called."""
        self.abandon = callback


class InferStream:
    """One stream. Messages come from one thread, answers from any."""

    def __init__(self, inference: Inference, call: Call, stream: Stream) -> None:
        self._inference = inference
        self._call = call
        self._stream = stream
        self._lock = threading.Lock()
        self._places: deque[_Place] = deque()
        self._is_reading = True
        self._is_half_closed = False
        # A request that found the server full while others of its stream are inside waits for one of them.
        self._parked: tuple[Body, _Place] | None = None
        call.on_end(self._abandon)

    def on_message(self, body: Body) -> None:
        """Have a request answered in its turn."""
        place = _Place()
        with self._lock:
            self._places.append(place)
            self._is_reading = False
        self._infer(body, place)
        self._read_on()

    def on_half_close(self) -> None:
        """End the stream once everything was answered."""
        with self._lock:
            self._is_half_closed = True
            is_over = not self._places
        if is_over:
            self._stream.finish()

    def _infer(self, body: Body, place: _Place) -> None:
        call = replace(self._call, on_end=place.on_end)

        def reply(result: bytes | Failure) -> None:
            if isinstance(result, bytes):
                self._fill(place, result)
            elif not self._park(result, body, place):
                self._fill(place, _failed(result, call.request_id))

        self._inference.infer(body, call, reply, _in_stream)

    def _abandon(self) -> None:
        """Let the requests under way know that nobody waits for them."""
        with self._lock:
            callbacks = [place.abandon for place in self._places if place.abandon is not None]
        for callback in callbacks:
            callback()

    def _park(self, failure: Failure, body: Body, place: _Place) -> bool:
        """Keep a request that the full server refused until another of this stream is answered, if one is."""
        if not isinstance(failure.cause, QueueFull):
            return False
        with self._lock:
            others = any(other is not place and other.body is None for other in self._places)
            if others and self._parked is None:
                self._parked = (body, place)
                return True
        return False

    def _fill(self, place: _Place, body: bytes) -> None:
        """Note an answer, and send those whose turn it is."""
        with self._lock:
            place.body, place.abandon = body, None
            # Under the lock, so that two threads cannot send in another order than they took.
            while self._places and (first := self._places[0].body) is not None:
                self._places.popleft()
                self._stream.send(first)
            parked, self._parked = self._parked, None
            is_over = self._is_half_closed and not self._places
        if parked is not None:
            self._infer(*parked)
        if is_over:
            self._stream.finish()
        else:
            self._read_on()

    def _read_on(self) -> None:
        """Ask for the next request if there is room for it."""
        with self._lock:
            is_full = len(self._places) >= _MOST_UNDER_WAY or self._parked is not None
            if self._is_reading or self._is_half_closed or is_full:
                return
            self._is_reading = True
        self._stream.read()


def _in_stream(parts: list[bytes]) -> bytes:
    """Put a ModelInferResponse into a ModelStreamInferResponse."""
    length = sum(map(len, parts))
    return b"".join((_INFER_RESPONSE, varint(length), *parts))


def _failed(failure: Failure, request_id: str) -> bytes:
    """Return the message that says why a request has no answer, and which one it was."""
    request = ModelInferResponse(id=request_id)
    message = ModelStreamInferResponse(error_message=failure.sentence, infer_response=request)
    return message.SerializeToString()
