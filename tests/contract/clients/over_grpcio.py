"""grpcio: threads over gRPC's C++ core."""

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from tests.contract.clients.conversation import AT_ONCE, Ask, OnBody, Outcome, ignore

_LONGEST_MESSAGE = 64 << 20


class Grpcio:
    """grpcio's client for threads."""

    packs = True

    def ask(self, address: str, asks: Sequence[Ask], on_body: OnBody = ignore) -> list[Outcome]:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
        ]
        with (
            grpc.insecure_channel(address, options) as channel,
            ThreadPoolExecutor(min(AT_ONCE, len(asks))) as pool,
        ):
            outcomes = [pool.submit(_ask, channel, each, index, on_body) for index, each in enumerate(asks)]
            return [outcome.result() for outcome in outcomes]


def options_of(ask: Ask) -> dict[str, Any]:
    """Return what grpcio's methods take for a call."""
    packed = grpc.Compression.Gzip if ask.is_packed else None
    return {"metadata": ask.metadata, "timeout": ask.timeout_seconds, "compression": packed}


def _ask(channel: Any, ask: Ask, index: int, on_body: OnBody) -> Outcome:
    if not ask.is_stream:
        call = channel.unary_unary(ask.path).future(ask.bodies[0], **options_of(ask))
        bodies: tuple[bytes, ...] = (call.result(),) if call.exception() is None else ()
    else:
        call, bodies = _talk(channel, ask, index, on_body)
    return Outcome(call.code().value[0], call.details() or "", bodies, tuple(call.trailing_metadata() or ()))


def _talk(channel: Any, ask: Ask, index: int, on_body: OnBody) -> tuple[Any, tuple[bytes, ...]]:
    turns: queue.SimpleQueue[None] = queue.SimpleQueue()

    def bodies() -> Iterator[bytes]:
        for number, body in enumerate(ask.bodies):
            if number and ask.is_in_turns:
                turns.get()
            yield body

    heard: list[bytes] = []
    call = channel.stream_stream(ask.path)(bodies(), **options_of(ask))
    try:
        for body in call:
            heard.append(body)
            on_body(index)
            turns.put(None)
            if len(heard) == ask.cancel_after:
                call.cancel()
    except grpc.RpcError:
        # The call tells its status itself.
        pass
    finally:
        for _ in ask.bodies:
            turns.put(None)
    return call, tuple(heard)
