"""grpc.aio: asyncio over gRPC's C++ core."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from tests.contract.clients.conversation import Ask, OnBody, Outcome, ask_together, ignore
from tests.contract.clients.over_grpcio import options_of

_LONGEST_MESSAGE = 64 << 20


class GrpcAio:
    """grpcio's client for asyncio."""

    packs = True

    def ask(self, address: str, asks: Sequence[Ask], on_body: OnBody = ignore) -> list[Outcome]:
        async def ask_all() -> list[Outcome]:
            options = [
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", _LONGEST_MESSAGE),
            ]
            async with grpc.aio.insecure_channel(address, options) as channel:
                return await ask_together(asks, lambda index, ask: _ask(channel, ask, index, on_body))

        return asyncio.run(ask_all())


async def _ask(channel: Any, ask: Ask, index: int, on_body: OnBody) -> Outcome:
    bodies: list[bytes] = []

    def take(body: bytes) -> None:
        bodies.append(body)
        on_body(index)

    if ask.is_stream:
        call = channel.stream_stream(ask.path)(**options_of(ask))
    else:
        call = channel.unary_unary(ask.path)(ask.bodies[0], **options_of(ask))
    try:
        if ask.is_stream:
            await _talk(call, ask, take)
        else:
            bodies.append(await call)
    except (grpc.RpcError, asyncio.CancelledError, asyncio.InvalidStateError):
        # The call tells its status itself.
        pass
    code, sentence, trailers = await call.code(), await call.details(), await call.trailing_metadata()
    return Outcome(code.value[0], sentence or "", tuple(bodies), tuple(trailers or ()))


async def _talk(call: Any, ask: Ask, take: Callable[[bytes], None]) -> None:
    unsent, heard = list(ask.bodies), 0
    while unsent:
        await call.write(unsent.pop(0))
        if ask.is_in_turns:
            break
    if not unsent:
        await call.done_writing()
    while isinstance(body := await call.read(), bytes):
        take(body)
        heard += 1
        if heard == ask.cancel_after:
            call.cancel()
        elif unsent:
            await call.write(unsent.pop(0))
            if not unsent:
                await call.done_writing()
