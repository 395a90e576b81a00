"""gRPC's own client hears the same from both transports: status, message, metadata and answers of any calls.

DIFFERENTIAL_EXAMPLES=2000 looks further than a run of all tests has time for.
"""

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import grpc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyweight.server.errors import Code
from tests.server.wire.asks import PATIENCE_SECONDS, Ask, anything
from tests.server.wire.pair import ECHO, FAIL, MANY, NEVER, SUM, TELL, Server, pair

EXAMPLES: Final = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "200"))
# Up to four calls at a time, on two servers: tens of milliseconds an example.
SOME: Final = settings(max_examples=EXAMPLES, derandomize="DIFFERENTIAL_EXAMPLES" not in os.environ)

Ends = Counter[tuple[str, Code]]


@dataclass(frozen=True)
class Heard:
    """What a call came to, as its caller sees it."""

    code: grpc.StatusCode
    sentence: str
    initial: list[tuple[str, str | bytes]]
    trailing: list[tuple[str, str | bytes]]
    answers: list[bytes]


class Asking:
    """A channel to one of the two, and the calls on it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        options = [("grpc.use_local_subchannel_pool", 1)]
        self.channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options)

    def begin(self, ask: Ask) -> "Begun":
        return Begun(self.channel, ask)


class Begun:
    """A call under way."""

    def __init__(self, channel: grpc.Channel, ask: Ask) -> None:
        self._ask = ask
        self._may_end = threading.Event()
        options: Any = {
            "metadata": ask.metadata,
            "compression": ask.compression,
            "timeout": ask.timeout,
        }
        # Of no type: bytes both ways need no serializers, which the stubs do not know.
        any_channel: Any = channel
        self._call: Any
        if ask.is_unary:
            self._call = any_channel.unary_unary(ask.path).future(ask.bodies[0], **options)
        else:
            self._call = any_channel.stream_stream(ask.path)(self._bodies(), **options)

    def _bodies(self) -> Iterator[bytes]:
        yield from self._ask.bodies
        if self._ask.stops_after is not None:
            self._may_end.wait(PATIENCE_SECONDS)

    def heard(self) -> Heard:
        answers = self._unary_answer() if self._ask.is_unary else self._answers()
        call = self._call
        initial, trailing = _sorted(call.initial_metadata()), _sorted(call.trailing_metadata())
        return Heard(call.code(), call.details(), initial, trailing, answers)

    def _unary_answer(self) -> list[bytes]:
        return [] if self._call.exception() is not None else [self._call.result()]

    def _answers(self) -> list[bytes]:
        found: list[bytes] = []
        try:
            while len(found) != self._ask.stops_after:
                found.append(next(self._call))
        except StopIteration:
            return found
        except grpc.RpcError:
            return found
        self._call.cancel()
        self._may_end.set()
        return found


def _sorted(metadata: Any) -> list[tuple[str, str | bytes]]:
    return sorted(((key, value) for key, value in metadata or ()), key=lambda pair: pair[0])


@pytest.fixture(scope="module")
def askings() -> Iterator[tuple[Asking, Asking]]:
    with pair() as (core, wire):
        both = Asking(core), Asking(wire)
        yield both
        for asking in both:
            asking.channel.close()


def is_certain(path: str, code: Code) -> bool:
    return path != NEVER and code is not Code.CANCELLED


def compare_counts(servers: Sequence[Server], before: Sequence[Ends]) -> None:
    """Compare what was counted since then; a caller may know of an end a moment before it is counted.

    Not of calls that only their callers end, and of those of whose end the server may hear at any time.
    """
    pause, ends_at = threading.Event(), time.monotonic() + PATIENCE_SECONDS
    while True:
        core, wire = (
            {key: count for key, count in (Counter(server.ends()) - then).items() if is_certain(*key)}
            for server, then in zip(servers, before, strict=True)
        )
        if core == wire or time.monotonic() > ends_at:
            assert core == wire
            return
        pause.wait(0.002)


def check(askings: tuple[Asking, Asking], asks: Sequence[Ask]) -> None:
    """Ask both the same, all calls at once; compare what they say, and what they count."""
    before = [Counter(asking.server.ends()) for asking in askings]
    begun = [[asking.begin(ask) for ask in asks] for asking in askings]
    from_core, from_wire = ([call.heard() for call in calls] for calls in begun)
    for ask, core, wire in zip(asks, from_core, from_wire, strict=True):
        if ask.is_refused_in_own_words:
            core, wire = (replace(heard, sentence="") for heard in (core, wire))  # noqa: PLW2901
        assert core == wire, ask
    if all(ask.is_counted_alike for ask in asks):
        compare_counts([asking.server for asking in askings], before)


@SOME
@given(st.lists(anything(), min_size=1, max_size=4))
@example([Ask(TELL, metadata=(("x", " a "), ("x", ""), ("x-bin", b""), ("x-bin", b"\0,=")))])
@example([Ask(FAIL, ("\n%ä\U0001f600".encode(),), (("x-t-a", "1"), ("x-t-a", "2")))])
@example([Ask(SUM, ()), Ask(MANY, ()), Ask(ECHO, (b"a", b"fail", b"b"))])
def test_both_say_the_same(askings: tuple[Asking, Asking], asks: list[Ask]) -> None:
    check(askings, asks)
