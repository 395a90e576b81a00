"""TLS at a real port: what clients that are slow, many or large cost the others, and what is left of them."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.server.security.certificates import watched_pems
from flyweight.server.wire.frames import PREFACE, Kind, frame, settings
from flyweight.server.wire.messages import framed
from tests.server.authority import Authority
from tests.server.wire.port import ASK, PATIENCE_SECONDS, Port, received

HELLO = PREFACE + settings({})
# As much as a client may give at once: windows of the connection and of its streams.
LARGE_WINDOWS = frame(Kind.WINDOW_UPDATE, 0, 0, (1 << 30).to_bytes(4, "big")) + settings({4: (1 << 31) - 1})  # type: ignore[dict-item]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def port(authority: Authority) -> Iterator[Port]:
    port = Port(watched_pems(authority.files))
    yield port
    port.close()


@pytest.fixture
def join(authority: Authority, port: Port) -> Iterator[Callable[..., ssl.SSLSocket]]:
    """Return a function that connects, while the server lives, and says what it is given."""
    opened: list[ssl.SSLSocket] = []

    def connect(said: bytes = HELLO, *, receive_bytes: int = 0) -> ssl.SSLSocket:
        bare = socket.socket()
        if receive_bytes:
            bare.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        bare.settimeout(PATIENCE_SECONDS)
        bare.connect(("127.0.0.1", port.number))
        sock = authority.context("client.example.org").wrap_socket(
            bare, server_hostname="127.0.0.1", do_handshake_on_connect=False
        )
        opened.append(sock)
        sock.settimeout(0.001)
        port.live_until(lambda: has_shaken(sock))
        sock.settimeout(PATIENCE_SECONDS)
        sock.sendall(said)
        return sock

    yield connect
    for sock in opened:
        sock.close()


def has_shaken(sock: ssl.SSLSocket) -> bool:
    try:
        sock.do_handshake()
    except TimeoutError:
        return False
    return True


def asked(port: Port, sock: ssl.SSLSocket) -> None:
    """Have a client's question answered."""
    before = len(port.calls)
    sock.sendall(ASK)
    port.live_until(lambda: len(port.calls) > before)
    port.calls[-1].answer(b"answer")
    port.live_until(received(sock, framed(b"answer")))


def test_a_call_knows_who_calls(port: Port, join: Callable[..., ssl.SSLSocket]) -> None:
    sock = join()
    asked(port, sock)
    assert port.calls[0].peer() == f"ipv4:127.0.0.1:{sock.getsockname()[1]}"
    assert port.calls[0].auth_context() == {
        "transport_security_type": [b"ssl"],
        "peer_dns": [b"client.example.org"],
        "x509_common_name": [b""],
    }


def test_who_connects_and_says_nothing_keeps_nobody_busy(port: Port) -> None:
    """What the server has to say cannot be said yet, and that there is room for it is no event."""
    with socket.create_connection(("127.0.0.1", port.number)) as silent:
        port.live_until(lambda: port.server._links)
        assert not any(port.server.take(time.monotonic() + 0.01) for _ in range(5))
        silent.sendall(b"\x16\x03\x01")
        port.live_until(lambda: not port.server.take(None))
        assert not any(port.server.take(time.monotonic() + 0.01) for _ in range(5))


def test_the_server_speaks_first_once_hands_are_shaken(
    port: Port, join: Callable[..., ssl.SSLSocket]
) -> None:
    """What it had to say of itself as the client connected has waited for that (RFC 9113, section 3.4)."""
    port.live_until(received(join(b""), b"\x04\x00\x00\x00\x00\x00"))


def test_slow_handshakes_keep_nobody_waiting(port: Port, join: Callable[..., ssl.SSLSocket]) -> None:
    with contextlib.ExitStack() as slow:
        for _ in range(20):
            sock = slow.enter_context(socket.create_connection(("127.0.0.1", port.number)))
            sock.sendall(b"\x16\x03\x01\x02\x00\x01")
        asked(port, join())
    port.live_until(lambda: len(port.server._links) == 1)


def test_one_byte_at_a_time_is_as_good(port: Port, join: Callable[..., ssl.SSLSocket]) -> None:
    sock = join(b"")
    for octet in HELLO + ASK:
        sock.sendall(bytes((octet,)))
        port.server.take(None)
    port.live_until(lambda: port.calls)


def test_garbage_ends_its_connection_and_no_other(port: Port, join: Callable[..., ssl.SSLSocket]) -> None:
    good = join()
    with socket.create_connection(("127.0.0.1", port.number)) as bad:
        bad.sendall(b"GET / HTTP/1.1\r\n\r\n")
        port.live_until(lambda: len(port.server._links) == 2)
        port.live_until(lambda: len(port.server._links) == 1)
    asked(port, good)


def test_a_large_answer_waits_for_whoever_reads_it(port: Port, join: Callable[..., ssl.SSLSocket]) -> None:
    sock = join(HELLO + LARGE_WINDOWS + ASK, receive_bytes=4096)
    port.live_until(lambda: port.calls)
    port.calls[0].answer(b"a" * (1 << 20) + b"the end")
    # Neither does it hold up anybody else.
    asked(port, join())
    port.live_until(received(sock, b"the end"))


def test_a_large_question_and_a_large_answer_pass_each_other(
    port: Port, join: Callable[..., ssl.SSLSocket]
) -> None:
    sock = join(HELLO + LARGE_WINDOWS + ASK)
    port.live_until(lambda: port.calls)
    port.calls[0].answer(b"a" * (1 << 20) + b"the end")
    headers = ASK[: ASK.index(frame(Kind.DATA, 1, 1, framed(b"question")))]
    parts = [frame(Kind.DATA, 0, 3, bytes(16_384)) for _ in range(16)]
    said = headers.replace(bytes((0, 0, 0, 1)), bytes((0, 0, 0, 3)), 1) + b"".join(parts)
    # OpenSSL's sockets are not for two threads at a time, so this one speaks first, and to a full server.
    talking = threading.Thread(target=lambda: sock.sendall(said))
    talking.start()
    port.live_until(lambda: not talking.is_alive())
    port.live_until(received(sock, b"the end"))
    assert len(port.calls) == 2


def test_many_handshakes_at_once_are_all_done(port: Port, authority: Authority) -> None:
    context = authority.context("client.example.org")

    def shake(_: int) -> str | None:
        with (
            socket.create_connection(("127.0.0.1", port.number), PATIENCE_SECONDS) as bare,
            context.wrap_socket(bare, server_hostname="127.0.0.1") as sock,
        ):
            return sock.selected_alpn_protocol()

    with ThreadPoolExecutor(50) as pool:
        shaken = [pool.submit(shake, number) for number in range(50)]
        port.live_until(lambda: all(each.done() for each in shaken))
    assert {each.result() for each in shaken} == {"h2"}
    port.live_until(lambda: not port.server._links)


def test_who_says_that_he_ends_is_gone(port: Port, join: Callable[..., ssl.SSLSocket]) -> None:
    """As without TLS, and as gRPC's core has it: nobody sends half of a connection."""
    over: list[bool] = []
    sock = join(HELLO + ASK)
    port.live_until(lambda: port.calls)
    port.calls[0].on_over(lambda: over.append(True))
    sock.settimeout(0.001)
    # It hears no end of ours at once, but what the server still had to say.
    with contextlib.suppress(ssl.SSLError, TimeoutError):
        sock.unwrap()
    port.live_until(lambda: over)
    assert not port.server._links


def test_a_server_that_stops_waits_for_no_handshake(authority: Authority) -> None:
    port = Port(watched_pems(authority.files))
    with socket.create_connection(("127.0.0.1", port.number)) as silent:
        port.live_until(lambda: port.server._links)
        port.close()
        silent.settimeout(PATIENCE_SECONDS)
        assert silent.recv(1) == b""


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_grpcs_own_client_is_answered(port: Port, authority: Authority, version: str) -> None:
    if version == "1.2":
        port.server._listener._handshakes._context.maximum_version = ssl.TLSVersion.TLSv1_2  # type: ignore[union-attr]
    credentials = authority.client("client.example.org")
    with grpc.secure_channel(f"127.0.0.1:{port.number}", credentials) as channel:
        method: Any = channel.unary_unary("/s/M")  # pyright: ignore[reportCallIssue] -- bytes both ways
        asking = method.future(bytes(1 << 19), timeout=PATIENCE_SECONDS)
        port.live_until(lambda: port.calls)
        port.calls[0].read(lambda body: port.calls[0].answer(bytes(body or b"")))
        port.live_until(asking.done)
        assert asking.result() == bytes(1 << 19)
