"""The same handlers behind both transports, for tests that ask both the same thing.

What they answer tells what they were given, so that whatever a transport changes on the way shows.
"""

import json
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Final

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Body, Call, Failure, Reply, Stream
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.method import Deferred, Method, Streaming, Unary
from flyweight.server.settings import ServerSettings, Transport
from tests.runs import NoRuns

MOST_MESSAGE_BYTES: Final = 200_000
MOST_METADATA_BYTES: Final = 16 * 1024
TELL, FAIL, NEVER, LATER = "/t.Pair/Tell", "/t.Pair/Fail", "/t.Pair/Never", "/t.Pair/Later"
ECHO, MANY, SUM = "/t.Pair/Echo", "/t.Pair/Many", "/t.Pair/Sum"
# What gRPC's own clients add to what they were given.
_CLIENTS_OWN: Final = frozenset({"user-agent"})


def told(body: Body, call: Call) -> bytes:
    """Return what a call said, and as much after it as the metadata "x-size" asks for."""
    # In order for each name; between names order means nothing, and the core has names of its own first.
    heard = sorted(
        (
            (name, value.hex() if isinstance(value, bytes) else value)
            for name, value in call.metadata
            if name not in _CLIENTS_OWN
        ),
        key=itemgetter(0),
    )
    has_deadline = call.deadline_monotonic is not None
    size = call.metadata_value("x-size") or "0"
    text = json.dumps([heard, has_deadline, len(body), zlib.crc32(body)])
    return text.encode() + bytes(int(size) if size.isdecimal() else 0)


def _fail(body: Body, call: Call, reply: Reply) -> None:
    code = Code(int(call.metadata_value("x-code") or Code.NOT_FOUND))
    trailers = tuple((name, str(value)) for name, value in call.metadata if name.startswith("x-t-"))
    reply(Failure(code, bytes(body).decode("utf-8", "replace"), trailers))


def _later(body: Body, call: Call, reply: Reply) -> None:
    threading.Thread(target=lambda: reply(told(body, call))).start()


def _never(_body: Body, _call: Call, _reply: Reply) -> None:
    """Leave the caller to its deadline."""


class _Echo:
    """Sends back what comes; a message of "fail" ends the call."""

    def __init__(self, _call: Call, stream: Stream) -> None:
        self._stream = stream

    def on_message(self, body: Body) -> None:
        if body == b"fail":
            self._stream.finish(Failure(Code.ABORTED, "As it was wished."))
            return
        self._stream.send(bytes(body))
        self._stream.read()

    def on_half_close(self) -> None:
        self._stream.finish()


class _Many:
    """Sends messages of the sizes that the first message names, or none; it does not wait for the end."""

    def __init__(self, _call: Call, stream: Stream) -> None:
        self._stream = stream

    def on_message(self, body: Body) -> None:
        for size in json.loads(bytes(body)):
            self._stream.send(bytes(size))
        self._stream.finish()

    def on_half_close(self) -> None:
        self._stream.finish(Failure(Code.INVALID_ARGUMENT, "No sizes came."))


class _Sum:
    """Tells what came once all of it has."""

    def __init__(self, call: Call, stream: Stream) -> None:
        self._call, self._stream = call, stream
        self._count, self._body = 0, b""

    def on_message(self, body: Body) -> None:
        self._count += 1
        self._body += body
        self._stream.read()

    def on_half_close(self) -> None:
        self._stream.send(b"%d " % self._count + told(self._body, self._call))
        self._stream.finish()


METHODS: Final[tuple[Method, ...]] = (
    Unary(TELL, told),
    Deferred(FAIL, _fail),
    Deferred(NEVER, _never),
    Deferred(LATER, _later),
    Streaming(ECHO, _Echo),
    Streaming(MANY, _Many),
    Streaming(SUM, _Sum),
)


@dataclass(frozen=True, slots=True)
class Server:
    """One of the two."""

    transport: Transport
    port: int
    carrier: Carrier

    def ends(self) -> dict[tuple[str, Code], int]:
        """Return how many calls of each RPC ended with each status."""
        return {(path, code): count for path, code, count in self.carrier.counts.totals()}


@contextmanager
def pair() -> Iterator[tuple[Server, Server]]:
    """Serve the methods over gRPC's core and over the wire."""
    with ExitStack() as stack:
        yield _serve(Transport.GRPCIO, stack.callback), _serve(Transport.WIRE, stack.callback)


def _serve(transport: Transport, at_end: Callable[[Callable[[], None]], object]) -> Server:
    settings = ServerSettings(
        Path("unused"), port=0, transport=transport, max_message_bytes=MOST_MESSAGE_BYTES
    )
    carrier = Carrier(settings, METHODS, NoRuns())
    port = carrier.bind()
    carrier.start()
    at_end(lambda: carrier.stop(0))
    return Server(transport, port, carrier)
