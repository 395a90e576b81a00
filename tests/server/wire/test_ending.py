"""How connections end: real sockets, and a loop that the test turns itself."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from socket import SO_RCVBUF, SOL_SOCKET, socket

import pytest

from flyweight.server.settings import ConnectionSettings
from flyweight.server.wire import lifetime
from flyweight.server.wire.frames import ErrorCode, Flag, Kind, frame, goaway, settings, window_update
from flyweight.server.wire.link import Link
from flyweight.server.wire.messages import framed
from tests.server.wire.port import ASK, HEADERS, PATIENCE_SECONDS, Port, received

HEARD = frame(Kind.PING, Flag.ACK, 0, b"leaving?")
NO_MORE, THE_END = goaway((1 << 31) - 1, ErrorCode.NO_ERROR), goaway(1, ErrorCode.NO_ERROR)
TERMS = ConnectionSettings(max_connections=2)


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port(terms=TERMS)
    yield port
    port.close()


@pytest.fixture
def aside() -> Iterator[Callable[[Callable[[], object]], threading.Thread]]:
    """Return a function that has something done by another thread."""
    with ExitStack() as stack:

        def begin(job: Callable[[], object]) -> threading.Thread:
            thread = threading.Thread(target=job)
            thread.start()
            stack.callback(thread.join, PATIENCE_SECONDS)
            return thread

        yield begin


def is_closed(sock: socket) -> Callable[[], bool]:
    """Return a condition that the server closed a connection; what came before is passed over."""
    sock.settimeout(0.01)

    def look() -> bool:
        try:
            return not sock.recv(1 << 20)
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    return look


def soon() -> float:
    return time.monotonic() + PATIENCE_SECONDS


def test_a_connection_too_many_is_closed_and_told_of_now_and_then(
    port: Port, caplog: pytest.LogCaptureFixture
) -> None:
    with port.connect() as first, port.connect():
        port.live_until(lambda: len(port.server._links) == 2)
        for _ in range(5):
            with port.connect() as other:
                port.live_until(is_closed(other))
        (record,) = caplog.records
        assert "2 connections are open, as many as may be (--max-connections); 1 more" in record.getMessage()
        first.sendall(ASK)
        port.live_until(lambda: port.calls)
    port.live_until(lambda: not port.server._links)
    with port.connect() as sock:
        sock.sendall(ASK)
        port.live_until(lambda: len(port.calls) == 2)


def fill(port: Port, sock: socket, size: int = 60_000) -> int:
    """Have answers sent to a client that does not read until some of it stays here; return how many."""
    sock.setsockopt(SOL_SOCKET, SO_RCVBUF, 256 << 10)
    sock.sendall(settings({4: (1 << 31) - 1}) + window_update(0, 1 << 30))  # type: ignore[dict-item]
    for count in range(1000):
        number = 2 * count + 1
        sock.sendall(frame(Kind.HEADERS, Flag.END_HEADERS, number, HEADERS))
        sock.sendall(frame(Kind.DATA, Flag.END_STREAM, number, framed(b"question")))
        port.live_until(lambda count=count: len(port.calls) > count)  # type: ignore[misc]
        port.calls[count].answer(bytes(size - 8) + b"the end!")
        port.server.take(None)
        (link,) = port.server._links.values()
        if link._unsent:
            return count + 1
    raise AssertionError("a socket that takes everything")


def test_a_closing_connection_whose_client_does_not_read_is_dropped(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "_CLOSING_SECONDS", 0.2)
    with port.connect() as sock:
        fill(port, sock)
        sock.sendall(bytes(9))
        port.live_until(lambda: not port.server._links)


def test_whoever_is_shut_down_may_be_given_time_to_send_what_is_left(
    port: Port, aside: Callable[[Callable[[], object]], threading.Thread]
) -> None:
    with port.connect() as sock:
        count = fill(port, sock)
        draining = aside(lambda: port.server.drain(soon()))
        port.live_until(lambda: port.server._listener is None)
        sock.sendall(HEARD)
        port.live_until(lambda: not draining.is_alive())
        port.server.shut_down()
        sock.settimeout(0.01)
        found = bytearray()

        def look() -> bool:
            with suppress(TimeoutError):
                found.extend(sock.recv(1 << 20))
            return found.count(b"the end!") == count

        port.live_until(look)
    port.live_until(lambda: not port.server._links)


def test_draining_closes_the_port_and_waits_until_clients_heard_of_it(
    port: Port, aside: Callable[[Callable[[], object]], threading.Thread]
) -> None:
    with port.connect() as sock:
        port.live_until(lambda: port.server._links)
        draining = aside(lambda: port.server.drain(soon()))
        port.live_until(received(sock, NO_MORE))
        with pytest.raises(ConnectionRefusedError):
            port.connect()
        # What is under way is taken, and answered.
        sock.sendall(ASK + HEARD)
        assert draining.is_alive()
        port.live_until(lambda: port.calls)
        port.live_until(received(sock, THE_END))
        port.live_until(lambda: not draining.is_alive())
        port.calls[0].answer(b"answer")
        port.live_until(received(sock, framed(b"answer")))


def test_a_client_that_does_not_hear_of_it_is_waited_for_in_vain(
    port: Port, aside: Callable[[Callable[[], object]], threading.Thread], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifetime, "_HEARD_SECONDS", 0.1)
    monkeypatch.setattr(lifetime, "_CLOSING_SECONDS", 0.1)
    with port.connect() as sock:
        port.live_until(lambda: port.server._links)
        draining = aside(lambda: port.server.drain(soon()))
        port.live_until(lambda: not draining.is_alive())
        # Nor does it close what is over.
        port.live_until(is_closed(sock))


def test_a_connection_that_came_just_before_is_drained_too(
    port: Port, aside: Callable[[Callable[[], object]], threading.Thread]
) -> None:
    with port.connect() as sock:
        draining = aside(lambda: port.server.drain(soon()))
        port.live_until(received(sock, NO_MORE))
        sock.sendall(HEARD)
        port.live_until(lambda: not draining.is_alive())


def test_connections_with_nothing_to_do_are_not_looked_at(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept: list[Link] = []
    monkeypatch.setattr(Link, "sweep", lambda link, _now: swept.append(link))
    with port.connect(), port.connect() as busy:
        busy.sendall(ASK)
        port.live_until(lambda: len(port.server._links) == 2 and len(swept) > 5)
        assert len({id(link) for link in swept}) == 1
