"""What connections may do, on real sockets."""

import errno
import gzip
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from flyweight.server.errors import StartError
from flyweight.server.rpc.core_options import channel_options
from flyweight.server.rpc.listening import bind
from flyweight.server.rpc.peers import peer_of
from flyweight.server.settings import Compression, ConnectionSettings, ServerSettings, Transport
from flyweight.server.wire import lifetime

PATIENCE_SECONDS = 30
# Whatever the option says: the two count and time connections by code of their own.
BOTH = pytest.mark.parametrize("transport", Transport)
Connect = Callable[..., grpc.Channel]
Start = Callable[..., Any]

# RFC 9113: the connection preface (section 3.4), and the types of the frames that are used here (section 6).
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS, PING, GOAWAY, ACK = 4, 6, 7, 1


def frame(kind: int, payload: bytes = b"", flags: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, 0) + payload


class Wire:
    """A socket that speaks HTTP/2 by hand."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS)

    def read(self, number: int) -> bytes:
        received = b""
        while len(received) < number and (part := self.socket.recv(number - len(received))):
            received += part
        return received

    def frames(self) -> Any:
        """Yield (kind, flags, payload) until the server closes."""
        while len(header := self.read(9)) == 9:
            kind, flags, _ = struct.unpack(">BBI", header[3:])
            yield kind, flags, self.read(int.from_bytes(header[:3]))

    def is_closed_by_server(self) -> bool:
        """Read to the end; the socket's own time-out is the deadline."""
        try:
            while self.socket.recv(4096):
                pass
        except OSError as error:
            return error.errno == errno.ECONNRESET
        return True


@pytest.fixture
def wire() -> Any:
    opened: list[Wire] = []

    def connect(port: int) -> Wire:
        opened.append(Wire(port))
        return opened[-1]

    yield connect
    for each in opened:
        each.socket.close()


def code_of(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    assert isinstance(caught.value, grpc.Call)
    return caught.value.code(), caught.value.details() or ""


@BOTH
@pytest.mark.parametrize("said", [b"", b"PRI * HTTP", PREFACE])
def test_a_connection_that_does_not_begin_is_closed(
    start_echo: Start, wire: Callable[[int], Wire], said: bytes
) -> None:
    echo = start_echo(connections=ConnectionSettings(handshake_seconds=0.2))
    half_open = wire(echo.port)
    half_open.socket.sendall(said)
    assert half_open.is_closed_by_server()


@BOTH
def test_a_connection_that_does_not_begin_tls_is_closed(
    start_echo: Start, wire: Callable[[int], Wire], make_authority: Any
) -> None:
    files = make_authority("only").files
    echo = start_echo(tls=files, connections=ConnectionSettings(handshake_seconds=0.2))
    assert wire(echo.port).is_closed_by_server()


@BOTH
def test_a_connection_too_many_is_closed_and_there_is_room_when_one_ends(
    start_echo: Start, wire: Callable[[int], Wire], connect: Connect
) -> None:
    echo = start_echo(connections=ConnectionSettings(max_connections=1, handshake_seconds=20))
    first = wire(echo.port)
    # The server's settings: it has accepted, and counts.
    assert first.read(9)
    assert wire(echo.port).is_closed_by_server()
    first.socket.close()
    assert echo.call(connect(echo.port), b"there", wait_for_ready=True) == b"there"


def test_metadata_over_the_limit_is_refused_without_its_values(start_echo: Start, connect: Connect) -> None:
    echo = start_echo(connections=ConnectionSettings(max_metadata_bytes=8192))
    call = connect(echo.port).unary_unary("/test.Echo/Peer")

    def send(number: int) -> bytes:
        answer: bytes = call(b"", timeout=PATIENCE_SECONDS, metadata=(("secret", "s3cr3t" * number),))
        return answer

    send(1200)
    code, sentence = code_of(lambda: send(1400))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "s3cr3t" not in sentence


def test_metadata_within_the_limit_never_fails_by_chance(start_echo: Start, connect: Connect) -> None:
    """The defaults of gRPC refuse a random part of the calls with more than 8 of 16 KiB."""
    echo = start_echo()
    channel = connect(echo.port)
    for _ in range(50):
        echo.call(channel, metadata=(("key", "v" * 15_000),))


def test_a_message_over_the_limit_is_refused(start_echo: Start, connect: Connect) -> None:
    echo = start_echo(max_message_bytes=1000)
    code, _ = code_of(lambda: echo.call(connect(echo.port), bytes(1001)))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(echo.call(connect(echo.port), bytes(1000))) == 1000


def test_a_compressed_message_is_measured_unpacked(start_echo: Start, connect: Connect) -> None:
    echo = start_echo(max_message_bytes=100_000)
    bomb = bytes(50 << 20)
    assert len(gzip.compress(bomb)) < 100_000
    channel = connect(echo.port, options=[("grpc.max_send_message_length", -1)])
    code, _ = code_of(lambda: echo.call(channel, bomb, compression=grpc.Compression.Gzip))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("algorithm", [grpc.Compression.Gzip, grpc.Compression.Deflate])
@pytest.mark.parametrize("outgoing", Compression)
def test_compressed_requests_are_read_whatever_responses_are(
    start_echo: Start, connect: Connect, algorithm: grpc.Compression, outgoing: Compression
) -> None:
    echo = start_echo(connections=ConnectionSettings(compression=outgoing))
    body = b"again and " * 1000
    assert echo.call(connect(echo.port), body, compression=algorithm) == body


@pytest.mark.parametrize(("outgoing", "said"), [(Compression.NONE, None), (Compression.GZIP, "gzip")])
def test_responses_are_compressed_when_that_is_asked_for(
    start_echo: Start, wire: Callable[[int], Wire], outgoing: Compression, said: str | None
) -> None:
    """Seen on the wire: clients unpack without a word."""
    echo = start_echo(connections=ConnectionSettings(compression=outgoing))
    body = bytes(10_000)
    with socket.create_server(("127.0.0.1", 0)) as door:
        channel = grpc.insecure_channel(f"127.0.0.1:{door.getsockname()[1]}")
        call = channel.unary_unary("/test.Echo/Peer").future(body, timeout=PATIENCE_SECONDS)
        client, _ = door.accept()
        carried = _relay(client, wire(echo.port).socket, call)
        assert call.result() == body
        channel.close()
        client.close()
    assert (carried < len(body)) == (said is not None)


def _relay(client: socket.socket, server: socket.socket, call: Any) -> int:
    """Carry bytes both ways until the call is done; return how many the server sent."""
    sent = 0
    for each in (client, server):
        each.settimeout(0.02)
    while not call.done():
        for source, sink in ((client, server), (server, client)):
            try:
                part = source.recv(65536)
            except TimeoutError:
                continue
            sink.sendall(part)
            sent += len(part) if source is server else 0
    return sent


@BOTH
def test_a_client_that_answers_no_ping_is_closed(start_echo: Start, wire: Callable[[int], Wire]) -> None:
    settings = ConnectionSettings(keepalive_seconds=0.1, keepalive_timeout_seconds=0.1)
    dead = wire(start_echo(connections=settings).port)
    dead.socket.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, flags=ACK))
    kinds = [kind for kind, _, _ in dead.frames()]
    assert PING in kinds


@BOTH
def test_a_client_that_pings_too_often_is_told_so(start_echo: Start, wire: Callable[[int], Wire]) -> None:
    hasty = wire(start_echo(connections=ConnectionSettings(min_ping_seconds=60)).port)
    hasty.socket.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, flags=ACK) + frame(PING, bytes(8)) * 5)
    farewells = [payload for kind, _, payload in hasty.frames() if kind == GOAWAY]
    assert any(b"too_many_pings" in payload for payload in farewells)


@BOTH
def test_pings_that_measure_the_bandwidth_never_count(start_echo: Start, connect: Connect) -> None:
    """Clients of gRPC send one with every round trip in which data came."""
    echo = start_echo(connections=ConnectionSettings(min_ping_seconds=3600), max_message_bytes=8 << 20)
    channel = connect(echo.port, options=[("grpc.max_receive_message_length", -1)])
    for size in (1 << 12, 1 << 20, 1 << 22):
        for _ in range(20):
            assert len(echo.call(channel, bytes(size))) == size
    assert len({peer.address for peer in echo.seen}) == 1


def test_a_client_that_pings_as_often_as_clients_may_is_not_cut_off() -> None:
    """By gRFC A8 clients take ten seconds for anything less."""
    options = dict(channel_options(ServerSettings(Path("unused"))))
    assert options["grpc.http2.min_ping_interval_without_data_ms"] < 10_000
    assert options["grpc.keepalive_permit_without_calls"] == 1


@BOTH
def test_a_connection_of_age_is_ended_without_losing_a_call(start_echo: Start, connect: Connect) -> None:
    echo = start_echo(connections=ConnectionSettings(max_connection_age_seconds=0.1))
    channel = connect(echo.port)
    addresses: set[str] = set()
    while len(addresses) < 3:
        echo.call(channel)
        addresses.add(echo.seen[-1].address)


@BOTH
def test_an_idle_connection_is_ended_when_that_is_asked_for(
    start_echo: Start, wire: Callable[[int], Wire], monkeypatch: pytest.MonkeyPatch
) -> None:
    # This client neither says that it heard of the end nor closes, and is not to be waited for here.
    monkeypatch.setattr(lifetime, "_HEARD_SECONDS", 0.1)
    monkeypatch.setattr(lifetime, "_CLOSING_SECONDS", 0.1)
    idle = wire(start_echo(connections=ConnectionSettings(max_connection_idle_seconds=0.1)).port)
    idle.socket.sendall(PREFACE + frame(SETTINGS) + frame(SETTINGS, flags=ACK))
    assert GOAWAY in [kind for kind, _, _ in idle.frames()]


def test_zero_seconds_are_never() -> None:
    never = (1 << 31) - 1
    options = dict(channel_options(ServerSettings(Path("unused"))))
    assert options["grpc.max_connection_age_ms"] == options["grpc.max_connection_idle_ms"] == never


def test_the_number_of_connections_follows_the_files_that_may_be_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (1024, 4096))
    options = dict(channel_options(ServerSettings(Path("unused"))))
    assert options["grpc.max_allowed_incoming_connections"] == 512


class Refusing:
    """A server that cannot listen."""

    def listen(self, address: str, pems: object) -> int:
        raise RuntimeError("no")


def test_a_port_that_grpc_does_not_take_is_told() -> None:
    with pytest.raises(StartError, match=r"127\.0\.0\.1:0 cannot be listened on"):
        bind(Refusing(), replace(ServerSettings(Path("unused")), port=0))


class From:
    """A call from an address."""

    def __init__(self, peer: str) -> None:
        self._peer = peer

    def peer(self) -> str:
        return self._peer

    def auth_context(self) -> dict[str, object]:
        return {}


@pytest.mark.parametrize(
    ("told", "address", "host"),
    [
        ("ipv4:10.1.2.3:456", "10.1.2.3:456", "10.1.2.3"),
        ("ipv6:%5B2001:db8::1%5D:456", "[2001:db8::1]:456", "[2001:db8::1]"),
        ("unix:", "unix:", "unix"),
    ],
)
def test_a_peers_address_reads_as_in_a_url(told: str, address: str, host: str) -> None:
    peer = peer_of(From(told))
    assert (peer.address, peer.host) == (address, host)
