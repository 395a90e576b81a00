"""grpclib: pure Python over asyncio and h2."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from grpclib.client import Channel
from grpclib.const import Cardinality, Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError, StreamTerminatedError

from tests.contract.clients.conversation import Ask, OnBody, Outcome, ask_together, ignore


class Bytes(CodecBase):
    """Messages as they are."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        return bytes(message)

    def decode(self, data: bytes, message_type: Any) -> bytes:
        return data


class Grpclib:
    """grpclib's client, which packs no messages."""

    packs = False

    def ask(self, address: str, asks: Sequence[Ask], on_body: OnBody = ignore) -> list[Outcome]:
        async def ask_all() -> list[Outcome]:
            host, _, port = address.rpartition(":")
            async with Channel(host, int(port), codec=Bytes()) as channel:
                return await ask_together(asks, lambda index, ask: _ask(channel, ask, index, on_body))

        return asyncio.run(ask_all())


async def _ask(channel: Channel, ask: Ask, index: int, on_body: OnBody) -> Outcome:
    bodies: list[bytes] = []

    def take(body: bytes) -> None:
        bodies.append(body)
        on_body(index)

    code, sentence = Status.OK, ""
    cardinality = Cardinality.STREAM_STREAM if ask.is_stream else Cardinality.UNARY_UNARY
    stream = channel.request(
        ask.path, cardinality, bytes, bytes, timeout=ask.timeout_seconds, metadata=list(ask.metadata)
    )
    try:
        async with stream:
            await _talk(stream, ask, take)
            if len(bodies) == ask.cancel_after:
                code = Status.CANCELLED
    except GRPCError as error:
        code, sentence = error.status, error.message or ""
    except TimeoutError:
        code = Status.DEADLINE_EXCEEDED
    except StreamTerminatedError as error:
        code, sentence = Status.UNAVAILABLE, str(error)
    return Outcome(code.value, sentence, tuple(bodies), tuple((stream.trailing_metadata or {}).items()))


async def _talk(stream: Any, ask: Ask, take: Callable[[bytes], None]) -> None:
    unsent, heard = list(ask.bodies), 0
    while unsent:
        await stream.send_message(unsent.pop(0), end=not unsent)
        if ask.is_in_turns:
            break
    while (body := await stream.recv_message()) is not None:
        take(body)
        heard += 1
        if heard == ask.cancel_after:
            await stream.cancel()
            return
        if unsent:
            await stream.send_message(unsent.pop(0), end=not unsent)
