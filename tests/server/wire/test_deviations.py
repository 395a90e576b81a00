"""The table of deviations is true of both servers, and of each however the bytes come."""

from collections.abc import Iterator

import pytest

from tests.server.wire.deviations import DEVIATIONS, Deviation
from tests.server.wire.framing import PLAIN, Form, written
from tests.server.wire.pair import Server, pair
from tests.server.wire.raw import Answer, RawClient

IN_PIECES = Form(block_cuts=(1, 40), data_cuts=tuple(range(60)))


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    with pair() as both:
        yield both


def outcome(answer: Answer) -> str:
    if answer.end != "answered":
        return answer.end
    return answer.said.get("grpc-status", answer.said[":status"])


def ask(server: Server, deviation: Deviation, form: Form) -> str:
    with RawClient(server.port) as client:
        client.send(written([deviation.call], [form]))
        found = outcome(client.answer(1))
        assert client.ping(), "the connection goes on"
        return found


@pytest.mark.parametrize("form", [PLAIN, IN_PIECES], ids=["whole", "in pieces"])
@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_the_wire_does_what_is_right(
    servers: tuple[Server, Server], deviation: Deviation, form: Form
) -> None:
    assert ask(servers[1], deviation, form) == deviation.wire


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_the_core_does_as_it_is_said_to(servers: tuple[Server, Server], deviation: Deviation) -> None:
    """If it does no more, the entry is to go: a new version of grpcio may have mended it."""
    assert ask(servers[0], deviation, PLAIN) == deviation.core


@pytest.mark.parametrize("deviation", DEVIATIONS, ids=lambda each: each.what)
def test_they_do_deviate(deviation: Deviation) -> None:
    assert deviation.core != deviation.wire
