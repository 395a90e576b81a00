"""However a call is cut into frames, the wire answers it as gRPC's core does when it is written plainly."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.server.wire.framing import FORMS, PLAIN, Call, End, Form, calls, message, usual, written
from tests.server.wire.pair import ECHO, TELL, Server, pair
from tests.server.wire.raw import Answer, RawClient

EXAMPLES: Final = int(os.environ.get("DIFFERENTIAL_EXAMPLES", "200"))
SOME: Final = settings(max_examples=EXAMPLES, derandomize="DIFFERENTIAL_EXAMPLES" not in os.environ)
# What each says of itself, or may leave out: an empty message with the status OK.
_OWN: Final = frozenset({"grpc-accept-encoding", "grpc-message", "date", "server"})


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with pair() as both:
        yield both


def seen(answer: Answer) -> tuple[object, ...]:
    """Return what of an answer has to be the same."""
    said = answer.said
    fields = sorted(pair for pair in said.items() if pair[0] not in _OWN)
    return fields, said.get("grpc-message", ""), answer.messages(), answer.end


def answers(server: Server, octets: bytes, number: int, cuts: Sequence[int] = ()) -> list[tuple[object, ...]]:
    """Send bytes, cut at some places, and return what came on so many streams."""
    with RawClient(server.port) as client:
        edges = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
        for begin, end in itertools.pairwise(edges):
            client.send(octets[begin:end])
        return [seen(client.answer(2 * n + 1)) for n in range(number)]


@SOME
@given(
    asked=st.lists(st.tuples(calls(), FORMS), min_size=1, max_size=3),
    turns=st.lists(st.integers(0, 5), max_size=30),
    cuts=st.lists(st.integers(0, 20_000), max_size=4),
)
@example([(Call(usual(TELL), message(b"one") + message(b"two"), End.NEVER), Form(data_cuts=(9,)))], [], [])
@example([(Call(usual(ECHO), b"", End.TRAILERS), Form((1, 2), (), 3, None, True, True))], [], [30])
def test_frames_change_nothing(
    servers: tuple[Server, Server],
    asked: list[tuple[Call, Form]],
    turns: list[int],
    cuts: list[int],
) -> None:
    core, wire = servers
    all_calls = [call for call, _ in asked]
    forms = [form for _, form in asked]
    octets = written(all_calls, forms, turns)
    plain = octets if all(form.core_reads_it for form in forms) else written(all_calls, [PLAIN] * len(forms))
    expected = answers(core, plain, len(asked))
    assert answers(wire, octets, len(asked), cuts) == expected
