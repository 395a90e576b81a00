"""A server whose RPCs show what a carrier brings and takes: metadata, large messages, ends, health."""

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Body, Call, Failure, Reply, Stream
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.health import Health
from flyweight.server.rpc.method import Deferred, Streaming, Unary
from flyweight.server.settings import MEGABYTE, Compression, ConnectionSettings, ServerSettings, Transport
from tests.contract.clients.conversation import PATIENCE_SECONDS
from tests.runs import NoRuns

SERVICE: Final = "/flyweight.test.Echo"
# Of a status: text that must be percent-encoded, and what looks as if it were.
SENTENCE: Final = "Schön schiefgegangen: 50 % von 日本, %41 bleibt."
TRAILER: Final = ("reason", "asked for, with: signs")
WATCHED: Final = "watched"


class Echo:
    """The server. Owns its carrier from construction to `stop`."""

    def __init__(self, transport: Transport, answers: Compression = Compression.NONE) -> None:
        self.health = Health()
        # One for each stream of Hold that ended.
        self._ended = threading.Semaphore(0)
        methods = [
            Unary(f"{SERVICE}/Same", lambda body, _call: bytes(body)),
            Unary(f"{SERVICE}/Metadata", _metadata),
            Deferred(f"{SERVICE}/Fail", _fail),
            Streaming(f"{SERVICE}/Hold", self._hold),
            *self.health.methods,
        ]
        settings = ServerSettings(
            Path("unused"),
            port=0,
            transport=transport,
            max_in_flight=512,
            max_message_bytes=8 * MEGABYTE,
            connections=ConnectionSettings(compression=answers),
        )
        self._carrier = Carrier(settings, methods, NoRuns())
        self.address = f"127.0.0.1:{self._carrier.bind()}"
        self._carrier.start()

    def tell_health(self, *, is_serving: bool) -> None:
        """Change the health of `WATCHED`."""
        known = {WATCHED: None}
        table: Any = SimpleNamespace(
            models=known if is_serving else {}, waiting=set() if is_serving else {*known}
        )
        self.health.on_table(table)

    def await_end(self) -> None:
        """Wait until the server knows of the end of one more stream of Hold."""
        assert self._ended.acquire(timeout=PATIENCE_SECONDS)

    def stop(self) -> None:
        """End it."""
        self._carrier.stop(0)

    def _hold(self, call: Call, stream: Stream) -> "_Held":
        call.on_end(self._ended.release)
        return _Held(stream)


class _Held:
    """Answers each message by itself, and never ends."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def on_message(self, body: Body) -> None:
        self._stream.send(bytes(body))
        self._stream.read()

    def on_half_close(self) -> None:
        """Go on."""


def _metadata(_body: Body, call: Call) -> bytes:
    """Return the call's metadata as JSON, with binary values in hexadecimal digits."""
    pairs = [(name, value if isinstance(value, str) else value.hex()) for name, value in call.metadata]
    return json.dumps(pairs).encode()


def _fail(_body: Body, _call: Call, reply: Reply) -> None:
    reply(Failure(Code.ABORTED, SENTENCE, (TRAILER,)))
