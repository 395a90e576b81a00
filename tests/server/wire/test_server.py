"""The port: real sockets, and a loop that the test turns itself."""

import os
import resource
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flyweight.server.wire import server
from flyweight.server.wire.connection import Limits
from flyweight.server.wire.frames import HEADER_BYTES, PREFACE, Kind, frame, settings
from flyweight.server.wire.link import Link
from flyweight.server.wire.messages import framed
from flyweight.server.wire.server import WireServer
from tests.open_files import no_file_left
from tests.server.wire.port import ASK, HEADERS, PATIENCE_SECONDS, Port, received


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.close()


def test_an_answer_may_come_from_another_thread(port: Port) -> None:
    with port.connect() as sock:
        sock.sendall(ASK)
        port.live_until(lambda: port.calls)
        (call,) = port.calls
        assert call.peer() == f"ipv4:127.0.0.1:{sock.getsockname()[1]}"
        answering = threading.Thread(target=lambda: call.answer(b"answer"))
        answering.start()
        port.live_until(received(sock, framed(b"answer")))
        answering.join(PATIENCE_SECONDS)


def test_whoever_answers_wakes_the_loop(port: Port) -> None:
    with port.connect() as sock:
        sock.sendall(ASK)
        port.live_until(lambda: port.calls)
        threading.Timer(0.1, lambda: port.calls[0].answer(b"answer")).start()
        began = time.monotonic()
        while port.server.take(began + PATIENCE_SECONDS) and not received(sock, framed(b"answer"))():
            assert time.monotonic() - began < PATIENCE_SECONDS
        assert time.monotonic() - began < PATIENCE_SECONDS / 2


def test_a_client_that_goes_away_ends_its_calls(port: Port) -> None:
    over: list[bool] = []
    with port.connect() as sock:
        sock.sendall(ASK)
        port.live_until(lambda: port.calls)
        port.calls[0].on_over(lambda: over.append(True))
        address = f"ipv4:127.0.0.1:{sock.getsockname()[1]}"
    port.live_until(lambda: over)
    assert port.calls[0].peer() == address, "the access log asks for it then"
    port.calls[0].answer(b"nobody hears it")
    with port.connect() as sock:
        sock.sendall(ASK)
        port.live_until(lambda: len(port.calls) > 1)


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), PREFACE + b"\xff" * 300])
def test_garbage_ends_its_connection_and_no_other(port: Port, octets: bytes) -> None:
    with port.connect() as good, socket.create_connection(("127.0.0.1", port.number)) as bad:
        bad.sendall(octets)
        port.live_until(received(bad, b"\x07\x00\x00\x00\x00\x00"))
        good.sendall(ASK)
        port.live_until(lambda: port.calls)
        port.calls[0].answer(b"answer")
        port.live_until(received(good, framed(b"answer")))


def test_a_large_answer_waits_for_whoever_reads_it(port: Port) -> None:
    with port.connect() as sock:
        sock.sendall(frame(Kind.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")))
        sock.sendall(settings({4: (1 << 31) - 1}) + ASK)  # type: ignore[dict-item]
        port.live_until(lambda: port.calls)
        port.calls[0].answer(b"a" * (8 << 20) + b"the end")
        port.live_until(received(sock, b"the end"))


def test_thousands_of_connections_that_come_and_go_leave_nothing(port: Port) -> None:
    with no_file_left():
        for _ in range(100):
            socks = [port.connect() for _ in range(20)]
            for sock in socks:
                sock.close()
            port.server.take(None)
        port.live_until(lambda: not port.server._links)


def test_a_server_that_is_shut_down_gives_everything_back() -> None:
    with no_file_left():
        _live_and_end(ASK)


def test_a_server_that_is_shut_down_in_a_large_message_gives_everything_back() -> None:
    with no_file_left():
        _live_and_end(LARGE[:100_000])


def _live_and_end(octets: bytes) -> None:
    port = Port()
    with port.connect() as sock:
        sock.sendall(octets)
        port.live_until(lambda: port.calls)
        port.close()
        assert not port.calls[0].is_active()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port.number))


def test_without_a_file_for_it_a_connection_waits(port: Port, caplog: pytest.LogCaptureFixture) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with port.connect() as sock:
        sock.sendall(ASK)
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        spare = [os.open("/dev/null", os.O_RDONLY) for _ in range(highest)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare) + 1, hard))
            port.live_until(lambda: "could not be accepted yet" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for number in spare:
                os.close(number)
        assert len(caplog.records) < 20, "not asked for at once"
        port.live_until(lambda: port.calls)


def test_an_address_that_is_taken_is_told(port: Port) -> None:
    other = WireServer(Limits(), 1, lambda _: None)
    with pytest.raises(RuntimeError, match=f"127.0.0.1:{port.number} cannot be listened on"):
        other.listen(f"127.0.0.1:{port.number}")


LARGE = frame(Kind.HEADERS, 4, 1, HEADERS) + b"".join(
    frame(Kind.DATA, int(at == 31), 1, part)
    for at, part in enumerate([framed(bytes(32 * 16_000 - 5))[at * 16_000 :][:16_000] for at in range(32)])
)


def has_message(port: Port) -> Callable[[], bool]:
    """Return a condition that the first call's message is there."""
    found: list[object] = []

    def look() -> bool:
        if port.calls and not found:
            found.append(None)
            port.calls[0].read(found.append)
        return len(found) > 1

    return look


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rests end with what comes, and not with time."""
    monkeypatch.setattr(server, "_REST_SECONDS", 1000 * PATIENCE_SECONDS)


@pytest.mark.usefixtures("patient")
def test_while_models_run_a_client_that_sends_much_is_let_be(port: Port) -> None:
    port.server.is_busy = lambda: True
    with port.connect() as sock:
        sock.sendall(LARGE[:100_000])
        port.live_until(lambda: port.server._resting)
        left = port.calls[0].missing_bytes
        sock.sendall(LARGE[100_000:300_000])
        with port.connect() as other:
            other.sendall(ASK)
            port.live_until(lambda: len(port.calls) == 2)
        assert port.calls[0].missing_bytes == left
        sock.sendall(LARGE[300_000:])
        port.live_until(has_message(port))


def test_a_large_message_is_read_in_large_pieces(port: Port, request: pytest.FixtureRequest) -> None:
    with port.connect() as sock:
        sock.sendall(LARGE[:-200_000])
        port.live_until(lambda: port.calls and 0 < port.calls[0].missing_bytes <= 200_000)
        port.live_until(lambda: not port.server._resting)
        request.getfixturevalue("patient")
        sock.sendall(LARGE[-200_000:-160_000])
        port.live_until(lambda: port.server._resting)
        left = port.calls[0].missing_bytes
        sock.sendall(LARGE[-160_000:-130_000])
        with port.connect() as other:
            other.sendall(ASK)
            port.live_until(lambda: len(port.calls) == 2)
        assert port.calls[0].missing_bytes == left
        sock.sendall(LARGE[-130_000:])
        port.live_until(has_message(port))


def test_a_message_that_stands_still_keeps_no_other_waiting(
    port: Port, request: pytest.FixtureRequest
) -> None:
    with port.connect() as sock:
        # All but its last frames.
        sock.sendall(LARGE[: -12 * (HEADER_BYTES + 16_000)])
        port.live_until(lambda: port.calls and port.calls[0].missing_bytes == 12 * 16_000)
        port.live_until(lambda: not port.server._resting)
        request.getfixturevalue("patient")
        for number in (3, 5):
            end = frame(Kind.DATA, 1, number, framed(bytes(40_000)))
            sock.sendall(frame(Kind.HEADERS, 4, number, HEADERS) + end)
            port.live_until(lambda calls=(number + 1) // 2: len(port.calls) == calls)
            port.live_until(lambda: not port.calls[-1].missing_bytes)
            assert not port.server._resting


def test_what_comes_beside_a_large_message_waits_no_longer_than_a_rest(port: Port) -> None:
    with port.connect() as sock:
        sock.sendall(LARGE[:100_000])
        port.live_until(lambda: port.server._resting)
        sock.sendall(LARGE[100_000 : LARGE.index(b"\x00\x3e\x80", 100_000)])
        sock.sendall(frame(Kind.PING, 0, 0, b"are you?"))
        port.live_until(received(sock, frame(Kind.PING, 1, 0, b"are you?")))


@pytest.mark.parametrize("is_busy", [True, False])
def test_whoever_was_let_be_is_heard(port: Port, is_busy: bool) -> None:
    port.server.is_busy = lambda: is_busy
    with port.connect() as sock:
        sending = threading.Thread(target=lambda: sock.sendall(LARGE))
        sending.start()
        port.live_until(has_message(port))
        sending.join(PATIENCE_SECONDS)
        port.calls[0].answer(b"answer")
        port.live_until(received(sock, framed(b"answer")))


def test_a_small_request_is_taken_at_once_while_models_run(port: Port) -> None:
    port.server.is_busy = lambda: True
    with port.connect() as sock:
        sock.sendall(ASK)
        port.live_until(has_message(port))
        assert not port.server._resting


def test_whoever_goes_away_in_a_rest_is_forgotten(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_REST_SECONDS", 0.05)
    port.server.is_busy = lambda: True
    with port.connect() as sock:
        sock.sendall(LARGE[:100_000])
        port.live_until(lambda: port.server._resting)
    port.live_until(lambda: not port.server._links and not port.server._resting)


class Broken:
    """A channel whose other end is gone."""

    is_full = True

    def __init__(self) -> None:
        self.reads = 0

    def fileno(self) -> int:
        return 1 << 20

    def send(self, _octets: bytes) -> int | None:
        return None

    def receive(self) -> bytes | None:
        self.reads += 1
        return b""

    def close(self) -> None:
        pass


def test_nothing_is_read_of_a_connection_that_was_dropped(port: Port) -> None:
    channel = Broken()
    link = Link(port.server, channel)  # type: ignore[arg-type]
    link.handle(select.EPOLLOUT | select.EPOLLIN | select.EPOLLHUP)
    assert channel.reads == 0


def test_a_bug_in_writing_one_connection_is_nothing_to_the_others(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    with port.connect() as good, port.connect() as bad:
        bad.sendall(ASK)
        port.live_until(lambda: port.calls)
        good.sendall(ASK)
        port.live_until(lambda: len(port.calls) == 2)
        first = next(link for link in port.server._links.values() if link is port.calls[0]._home)
        write = Link.write

        def fail(link: Link) -> None:
            if link is first:
                raise RuntimeError("a bug")
            write(link)

        monkeypatch.setattr(Link, "write", fail)
        for call in port.calls:
            call.answer(b"answer")
        port.live_until(received(good, framed(b"answer")))
        assert first not in port.server._links.values()
