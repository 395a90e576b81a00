"""TLS on one end of a pair of sockets, without a server; the other end is OpenSSL too, fed by hand."""

import hmac
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from flyweight.server.security.certificates import watched_pems
from flyweight.server.wire import handshakes
from flyweight.server.wire.handshakes import Handshakes, Refusals
from flyweight.server.wire.tls import TlsChannel
from tests.server.authority import Authority

LOG = "flyweight.server.wire.handshakes"
ALL = 1 << 20


class Client:
    """The other end. Nothing leaves it but by `give`, so a test may cut what it says wherever it likes."""

    def __init__(self, context: ssl.SSLContext, sock: socket.socket) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")
        sock.setblocking(False)

    def hear(self) -> bool:
        """Take what the server said; tell whether the handshake is done, as far as the client knows."""
        with suppress(BlockingIOError):
            self.incoming.write(self.sock.recv(ALL))
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def give(self, size: int = ALL) -> int:
        """Send some of what is to be said; return how much that was."""
        return self.sock.send(self.outgoing.read(size)) if self.outgoing.pending else 0

    def read(self) -> bytes:
        """Return what there is, decrypted."""
        found = b""
        with suppress(BlockingIOError):
            while octets := self.sock.recv(ALL):
                self.incoming.write(octets)
        with suppress(ssl.SSLWantReadError):
            while part := self.tls.read(ALL):
                found += part
        return found


class Ends:
    """Both ends."""

    def __init__(self, server: Handshakes, context: ssl.SSLContext) -> None:
        ours, theirs = socket.socketpair()
        self.channel = TlsChannel(ours, "unix:", server.context(), server.refusals)
        self.client = Client(context, theirs)

    def shake_hands(self) -> bytes | None:
        """Let both speak until neither has anything to say; return what the channel received in the end."""
        self.client.hear()
        received = None
        while self.client.give():
            received = self.channel.receive()
            if received != b"":
                self.client.hear()
        return received

    def close(self) -> None:
        self.channel.close()
        self.client.sock.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


Join = Callable[..., Ends]


@pytest.fixture
def join(authority: Authority) -> Iterator[Join]:
    """Return a function that joins a client to a server that asks for certificates, or for none."""
    made: list[Ends] = []

    def make(context: ssl.SSLContext | None = None, *, asks: bool = False) -> Ends:
        files = authority.files if asks else replace(authority.files, client_authority=None)
        made.append(Ends(Handshakes(watched_pems(files)), context or authority.context()))
        return made[-1]

    yield make
    for ends in made:
        ends.close()


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO, LOG)
    return lambda: [record.getMessage() for record in caplog.records if record.name == LOG]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_go_both_ways(join: Join, authority: Authority, version: ssl.TLSVersion) -> None:
    context = authority.context()
    context.minimum_version = context.maximum_version = version
    ends = join(context)
    assert ends.shake_hands() is None
    assert ends.client.tls.selected_alpn_protocol() == "h2"
    assert ends.channel.send(b"from the server") == 15
    assert ends.client.read() == b"from the server"
    ends.client.tls.write(b"from the client")
    ends.client.give()
    assert ends.channel.receive() == b"from the client"
    assert ends.channel.receive() is None


def test_before_hands_are_shaken_nothing_is_taken_and_nobody_waits_for_room(join: Join) -> None:
    ends = join()
    assert ends.channel.send(b"early") == 0
    assert not ends.channel.is_full
    ends.client.hear()
    ends.client.give()
    assert ends.channel.receive() is None
    assert ends.channel.send(b"early") == 0
    assert not ends.channel.is_full
    ends.shake_hands()
    assert ends.channel.send(b"early") == 5


def test_what_comes_with_the_end_of_the_handshake_is_received_at_once(join: Join) -> None:
    ends = join()
    ends.client.hear()
    ends.client.give()
    assert ends.channel.receive() is None
    assert ends.client.hear()
    ends.client.tls.write(b"first")
    ends.client.give()
    assert ends.channel.receive() == b"first"


def test_one_byte_at_a_time_is_as_good(join: Join) -> None:
    ends = join()
    received = b""
    for _ in range(3):
        ends.client.hear()
        if ends.client.tls.version() is not None and not ends.client.outgoing.pending:
            ends.client.tls.write(b"a question")
        while ends.client.give(1):
            received += ends.channel.receive() or b""
    assert received == b"a question"


def test_all_records_that_have_come_are_received(join: Join) -> None:
    """What OpenSSL or its buffers held back would wait for an event that nobody sends."""
    ends = join()
    ends.shake_hands()
    for number in range(5000):
        ends.client.tls.write(b"%5d" % number)
    ends.client.tls.write(bytes(100_000))
    whole = b"".join(b"%5d" % number for number in range(5000)) + bytes(100_000)
    received = b""
    while ends.client.outgoing.pending:
        ends.client.give(100_000)
        received += ends.channel.receive() or b""
    assert received == whole
    assert ends.channel.receive() is None


def test_a_full_socket_takes_no_more_and_loses_nothing(join: Join) -> None:
    ends = join()
    ends.shake_hands()
    octets = bytes(range(256)) * (1 << 13)
    left, received = octets, b""
    was_full = False
    while left:
        taken = ends.channel.send(left)
        assert taken is not None
        if not taken:
            was_full = True
            assert ends.channel.is_full
            part = ends.client.read()
            assert part
            received += part
        left = left[taken:]
    assert was_full
    assert received + ends.client.read() == octets


def test_what_is_taken_is_in_the_socket(join: Join) -> None:
    """So that a connection whose last bytes were taken may be closed."""
    ends = join()
    ends.shake_hands()
    octets = bytes(1 << 20)
    taken = 0
    while part := ends.channel.send(octets[taken:]):
        taken += part
    assert len(ends.client.read()) >= taken
    ends.channel.close()


def test_an_end_is_told_after_what_came_before_it(join: Join) -> None:
    ends = join()
    ends.shake_hands()
    ends.client.tls.write(b"last words")
    ends.client.give()
    ends.client.sock.close()
    assert ends.channel.receive() == b"last words"
    assert ends.channel.receive() == b""
    assert ends.channel.receive() == b""


def test_a_client_may_say_that_it_ends(join: Join) -> None:
    ends = join()
    ends.shake_hands()
    with pytest.raises(ssl.SSLWantReadError):
        ends.client.tls.unwrap()
    ends.client.give()
    assert ends.channel.receive() == b""


def test_the_server_says_that_it_ends(join: Join) -> None:
    ends = join()
    ends.shake_hands()
    ends.channel.send(b"last words")
    ends.channel.close()
    ends.client.incoming.write(ends.client.sock.recv(ALL))
    assert ends.client.tls.read(ALL) == b"last words"
    assert ends.client.tls.read(ALL) == b"", "or it would want to hear more"


def test_a_handshake_that_is_cut_short_is_an_end_and_no_news(
    join: Join, told: Callable[[], list[str]]
) -> None:
    ends = join()
    ends.client.hear()
    ends.client.give(100)
    assert ends.channel.receive() is None
    ends.client.sock.close()
    assert ends.channel.receive() == b""
    assert ends.channel.send(b"x") is None
    assert told() == []


@pytest.mark.parametrize(
    "octets", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\xff" * 100]
)
def test_who_speaks_no_tls_is_turned_away(join: Join, told: Callable[[], list[str]], octets: bytes) -> None:
    ends = join()
    ends.client.sock.send(octets)
    assert ends.channel.receive() == b""
    assert ends.channel.send(b"x") is None
    (line,) = told()
    assert line.startswith("unix: was turned away in its TLS handshake: ")


def test_garbage_after_the_handshake_is_an_end(join: Join) -> None:
    ends = join()
    ends.shake_hands()
    ends.client.tls.write(b"half of it")
    ends.client.sock.send(ends.client.outgoing.read()[:-1] + b"\x00" + b"\x17\x03\x03\x00\x20" + bytes(32))
    assert ends.channel.receive() == b""


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
def test_who_does_not_ask_for_http2_is_turned_away(
    join: Join, authority: Authority, told: Callable[[], list[str]], protocols: tuple[str, ...]
) -> None:
    ends = join(authority.context(protocols=protocols))
    assert ends.shake_hands() == b""
    (line,) = told()
    assert "does not ask for HTTP/2" in line


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_an_old_version_is_turned_away(
    join: Join, authority: Authority, told: Callable[[], list[str]]
) -> None:
    context = authority.context()
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    assert join(context).shake_hands() == b""
    (line,) = told()
    assert "unsupported protocol" in line


@pytest.mark.parametrize(
    "suite", ["ECDHE-ECDSA-AES128-SHA256", "AES128-GCM-SHA256", "DHE-RSA-AES128-GCM-SHA256"]
)
def test_a_suite_that_http2_prohibits_is_turned_away(join: Join, authority: Authority, suite: str) -> None:
    context = authority.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(suite)
    assert join(context).shake_hands() == b""


def test_who_has_no_certificate_is_told_so_and_turned_away(join: Join, told: Callable[[], list[str]]) -> None:
    ends = join(asks=True)
    assert ends.shake_hands() == b""
    with pytest.raises(ssl.SSLError, match="ALERT_CERTIFICATE_REQUIRED"):
        ends.client.read()
    (line,) = told()
    assert "peer did not return a certificate" in line


def test_who_has_a_certificate_of_somebody_else_is_turned_away(
    join: Join, authority: Authority, told: Callable[[], list[str]], tmp_path: Path
) -> None:
    context = Authority(tmp_path / "other").context("client.example.org")
    context.load_verify_locations(cadata=authority.root.decode())
    assert join(context, asks=True).shake_hands() == b""
    (line,) = told()
    assert "its certificate was not accepted" in line


def test_a_name_that_is_no_text_is_turned_away(
    join: Join, authority: Authority, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        b"\xff".decode()

    monkeypatch.setattr(ssl.SSLObject, "getpeercert", fail)
    assert join(authority.context("client.example.org"), asks=True).shake_hands() == b""
    (line,) = told()
    assert "is no text" in line


def prf(secret: bytes, label: bytes, seed: bytes, size: int) -> bytes:
    """RFC 5246, section 5."""
    seed, found = label + seed, b""
    value = seed
    while len(found) < size:
        value = hmac.digest(secret, value, "sha256")
        found += hmac.digest(secret, value + seed, "sha256")
    return found[:size]


class Renegotiating:
    """A client that has shaken hands by TLS 1.2, and would like to again and again (RFC 5288, section 3)."""

    def __init__(self, join: Join, authority: Authority, folder: Path) -> None:
        context = authority.context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
        context.keylog_filename = str(folder / "keys")
        self.ends = join(context)
        client = self.ends.client
        client.hear()
        client.give()
        self.ends.channel.receive()
        # Behind the heads of the record and of the message, and the version.
        server_random = client.sock.recv(43, socket.MSG_PEEK)[11:]
        self.ends.shake_hands()
        line = next(line for line in (folder / "keys").read_text().splitlines() if line.startswith("CLIENT_"))
        client_random, secret = (bytes.fromhex(word) for word in line.split()[1:])
        block = prf(secret, b"key expansion", server_random + client_random, 40)
        self._key, self._salt = AESGCM(block[:16]), block[32:36]
        # The first record was the end of the handshake.
        self._count = 1

    def ask(self) -> None:
        """Say Hello once more."""
        message, count = bytes((1, 0, 0, 0)), self._count.to_bytes(8, "big")
        self._count += 1
        about = count + b"\x16\x03\x03" + len(message).to_bytes(2, "big")
        sealed = count + self._key.encrypt(self._salt + count, message, about)
        self.ends.client.sock.send(b"\x16\x03\x03" + len(sealed).to_bytes(2, "big") + sealed)


def test_who_asks_without_end_and_hears_no_answer_is_turned_away(
    join: Join, authority: Authority, tmp_path: Path
) -> None:
    """A new handshake is refused each time, and the refusals must not pile up."""
    client = Renegotiating(join, authority, tmp_path)
    answered = 0
    while client.ends.channel.receive() is None:
        client.ask()
        answered += 1
        assert answered < 100_000
    assert answered > 1000, "they were refused, one by one"


def test_a_new_certificate_that_cannot_be_used_yet_is_used_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It was read and is good, but OpenSSL reads files, and there may be too many open."""
    files = Authority(tmp_path).files
    made = Handshakes(watched_pems(files))
    old = made.context()
    Authority(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(handshakes, "server_context", lambda _: os.open("/proc/nowhere", os.O_RDONLY))
        assert made.context() is old
    assert "cannot be used yet: no such file or directory" in caplog.text
    new = made.context()
    assert new is not old
    assert made.context() is new


def test_refusals_are_told_now_and_then(told: Callable[[], list[str]]) -> None:
    now = 100.0
    refusals = Refusals(lambda: now)
    for _ in range(50):
        refusals.tell("ipv4:10.0.0.1:1", "it speaks French")
    assert len(told()) == 1
    now += 60
    refusals.tell("ipv4:10.0.0.1:1", "it speaks French")
    assert told()[0] == "ipv4:10.0.0.1:1 was turned away in its TLS handshake: it speaks French."
    assert told()[1] == told()[0] + " So were 49 others since this was last told."
