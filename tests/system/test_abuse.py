"""Clients that die, dawdle, flood and lie, each beside a good one, which notices nothing of it.

What is sent here no client library sends, so it is made by hand. After each kind of abuse the server has as
many files open as before, and about as much memory.
"""

import gzip
import os
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import grpc
import pytest

from tests.system.stress import frames
from tests.system.stress.callers import Crowd, Group, body_of
from tests.system.stress.floods import floods
from tests.system.stress.frames import Wire, frame, headers, message
from tests.system.stress.models import publish
from tests.system.stress.scenarios import SEED
from tests.system.stress.serving import PATIENCE_SECONDS, Served, eventually, serving

pytestmark = pytest.mark.system

MEGABYTE = 1 << 20
SCALES = {"baseline": 2.0}
# Pages that the heap keeps once it had them: pools that fill, a buffer for each connection there was.
SLACK_BYTES = 64 * MEGABYTE
# Answers that a good client gets during an abuse before it is believed that it is not disturbed.
ENOUGH = 30


@dataclass
class Scene:
    """A server, a good client that asks it without a pause, and what the server had before the abuse."""

    served: Served
    crowd: Crowd

    @property
    def address(self) -> tuple[str, int]:
        return self.served.host_and_port

    def wire(self, *, greets: bool = True) -> Wire:
        return Wire(self.address, greets=greets)

    def good_client_goes_on(self, count: int = ENOUGH) -> None:
        """Wait until the good client has so many more answers, and was never refused."""
        ledger = self.crowd.ledgers["good"]
        assert ledger.await_more(count, PATIENCE_SECONDS), f"the good client hears nothing: {ledger}"
        assert set(ledger.codes) <= {"OK"}, ledger.complaints()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("abuse")
    repository = folder / "repository"
    publish(repository, "tiny", "baseline", SCALES["baseline"])
    # A memory measurer would come and go in between.
    with serving(repository, "--no-measure-memory", folder=folder) as served:
        yield served
        assert served.tracebacks() == []


@pytest.fixture
def scene(served: Served) -> Iterator[Scene]:
    """Return a scene; after the test everything of the abuse is gone from the server."""
    with Crowd(served.address, (Group("good", 1, scales=SCALES),), SEED) as crowd:
        scene = Scene(served, crowd)
        scene.good_client_goes_on()
        files, memory = served.open_files(), served.resident_bytes()
        yield scene
        scene.good_client_goes_on()
        crowd.stop()
        crowd.check()
        assert served.is_alive()
        eventually(
            served.open_files, lambda count: count <= files, f"files are closed again, {files} at first"
        )
        if served.resident_bytes() > memory + SLACK_BYTES:
            # The heap keeps what was freed in it until a variant is unloaded; what is left then is in use.
            publish(served.repository, "tiny", "baseline", SCALES["baseline"])
        eventually(
            served.resident_bytes,
            lambda now: now <= memory + SLACK_BYTES,
            f"memory is given back, {memory} at first",
        )
        eventually(lambda: served.total("flyweight_requests_in_flight"), lambda held: held == 0)


# --- clients that die ---

DYING = """
    import sys, grpc
    from tests.system.stress.callers import UNARY, STREAM, body_of
    channel = grpc.insecure_channel(sys.argv[1])
    def messages():
        while True:
            yield body_of(1, "tiny", rows=64)
    if sys.argv[2] == "0":
        stream = channel.stream_stream(STREAM)(messages())
        next(stream)
    print("going", flush=True)
    while True:
        futures = [channel.unary_unary(UNARY).future(body_of(1, "tiny", rows=512)) for _ in range(8)]
        [future.exception() for future in futures]
"""


def test_clients_that_are_killed_leave_nothing_behind(scene: Scene) -> None:
    root = str(Path(__file__).parents[2])
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(DYING), scene.served.address, str(number)],
            stdout=subprocess.PIPE,
            cwd=root,
        )
        # One stream has half of the places in the server; all three would take the good client's too.
        for number in range(3)
    ]
    try:
        for client in clients:
            assert client.stdout is not None
            assert client.stdout.readline() == b"going\n"
        scene.good_client_goes_on()
    finally:
        for client in clients:
            client.kill()
            client.wait(PATIENCE_SECONDS)
            assert client.stdout is not None
            client.stdout.close()


def test_a_connection_cut_in_an_upload_leaves_nothing_behind(scene: Scene) -> None:
    body = message(bytes(20 * MEGABYTE))
    for cut_hard in (True, False) * 5:
        with scene.wire() as wire:
            wire.send(headers(1))
            wire.push(
                b"".join(frame(frames.DATA, 0, 1, body[at : at + 16384]) for at in range(0, 49152, 16384))
            )
            if cut_hard:
                # RST instead of FIN.
                linger = struct.pack("ii", 1, 0)
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    scene.good_client_goes_on()


# --- clients that dawdle ---


def test_a_stream_that_is_not_read_holds_little_memory(scene: Scene) -> None:
    before = scene.served.resident_bytes()
    body = body_of(1.0, "tiny", rows=1024)
    with ExitStack() as stack:
        for _ in range(4):
            wire = stack.enter_context(Wire(scene.address))
            wire.send(headers(1, "/inference.GRPCInferenceService/ModelStreamInfer"))
            content = message(body)
            parts = b"".join(
                frame(frames.DATA, 0, 1, content[at : at + 16384]) for at in range(0, len(content), 16384)
            )
            # Never reads an answer, nor a window update; sends for as long as anything is taken.
            for _ in range(200):
                if not wire.push(parts):
                    break
                scene.good_client_goes_on(1)
        scene.good_client_goes_on()
        grown = scene.served.resident_bytes() - before
        # Four streams, 32 requests under way and 32 answers of 256 KB each: the bound that the server keeps.
        assert grown < 4 * (32 + 32) * len(body) + SLACK_BYTES, grown


def half_open(scene: Scene) -> "dict[str, Callable[[Wire], object]]":
    return {
        "nothing": lambda wire: None,
        "half a preface": lambda wire: wire.send(frames.PREFACE[:10]),
        "a preface": lambda wire: wire.send(frames.PREFACE),
        "settings": lambda wire: wire.send(frames.PREFACE + frames.settings()),
        "half a frame": lambda wire: wire.send(frames.PREFACE + frames.settings() + b"\0\0"),
        "headers alone": lambda wire: wire.send(frames.PREFACE + frames.settings() + headers(1)),
        "headers without an end": lambda wire: wire.send(
            frames.PREFACE
            + frames.settings()
            + frame(frames.HEADERS, 0, 1, frames.header_block(frames.MODEL_INFER))
        ),
        "half a message": lambda wire: wire.send(
            frames.PREFACE
            + frames.settings()
            + headers(1)
            + frame(frames.DATA, 0, 1, message(bytes(1000))[:100])
        ),
        "a half-open stream": lambda wire: wire.send(
            frames.PREFACE
            + frames.settings()
            + headers(1, "/inference.GRPCInferenceService/ModelStreamInfer")
        ),
    }


def test_half_open_connections_disturb_nobody(scene: Scene) -> None:
    with ExitStack() as stack:
        for begin in half_open(scene).values():
            for _ in range(20):
                begin(stack.enter_context(Wire(scene.address, greets=False)))
        scene.good_client_goes_on(5 * ENOUGH)


def test_calls_that_never_send_their_message_disturb_nobody(scene: Scene) -> None:
    """More of them than requests may be inside."""
    with ExitStack() as stack:
        for _ in range(3):
            wire = stack.enter_context(scene.wire())
            for stream in range(1, 200, 2):
                part = frame(frames.DATA, 0, stream, message(bytes(MEGABYTE))[:1000])
                wire.send(headers(stream) + (part if stream % 4 == 1 else b""))
        scene.good_client_goes_on(5 * ENOUGH)


# --- clients that flood ---


@pytest.mark.parametrize("name", list(floods()))
def test_a_good_client_hears_nothing_of(scene: Scene, name: str) -> None:
    random = Random(SEED)
    flood = floods()[name]
    greets = name not in {"garbage", "http1"}
    for _ in range(3):
        with suppress(OSError), scene.wire(greets=greets) as wire:
            thread = threading.Thread(target=flood, args=(wire, random))
            thread.start()
            scene.good_client_goes_on(10)
            # A flood that is not taken any more waits in its last send; cutting the connection ends it.
            with suppress(OSError):
                wire.socket.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


def test_two_thousand_connections_that_come_and_go_disturb_nobody(scene: Scene) -> None:
    for _ in range(20):
        with ExitStack() as stack:
            for number in range(100):
                stack.enter_context(scene.wire(greets=number % 2 == 0))
        scene.good_client_goes_on(1)


# --- clients that lie ---


def test_requests_that_are_refused_keep_no_memory(scene: Scene) -> None:
    """A batch too large, again and again: four hundred megabytes of them."""
    body = body_of(1.0, "tiny", rows=4 * 4096)
    with grpc.insecure_channel(scene.served.address) as channel:
        ask = channel.unary_unary(frames.MODEL_INFER)
        codes = {ask.future(body, timeout=PATIENCE_SECONDS).code() for _ in range(5)}
        before = scene.served.resident_bytes()
        codes |= {ask.future(body, timeout=PATIENCE_SECONDS).code() for _ in range(100)}
        assert codes == {grpc.StatusCode.INVALID_ARGUMENT}
        assert scene.served.resident_bytes() < before + SLACK_BYTES


def answer_to(served: Served, body: bytes, **options: object) -> grpc.StatusCode:
    with grpc.insecure_channel(
        served.address, options=[("grpc.max_send_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        future = channel.unary_unary(frames.MODEL_INFER).future(body, timeout=PATIENCE_SECONDS, **options)
        code: grpc.StatusCode = future.code()
        return code


def test_a_message_over_the_limit_is_refused(scene: Scene) -> None:
    body = body_of(1.0, "tiny", rows=65 * 4096)
    assert len(body) > 64 * MEGABYTE
    for _ in range(3):
        assert answer_to(scene.served, body) is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_message_that_unpacks_to_more_than_the_limit_is_refused(scene: Scene) -> None:
    """Four hundred megabytes in as many kilobytes."""
    packed = gzip.compress(bytes(400 * MEGABYTE), 9)
    with scene.wire() as wire:
        for stream in (1, 3, 5):
            content = message(packed, compressed=True)
            wire.send(headers(stream, frames.MODEL_INFER, ("grpc-encoding", "gzip")))
            for at in range(0, len(content), 16384):
                end = frames.END_STREAM if at + 16384 >= len(content) else 0
                wire.push(frame(frames.DATA, end, stream, content[at : at + 16384]))
            scene.good_client_goes_on(5)


def test_a_message_longer_than_it_says_is_refused(scene: Scene) -> None:
    body = body_of(1.0, "tiny")
    lies = (
        struct.pack(">BI", 0, (1 << 32) - 1) + body,
        struct.pack(">BI", 0, 5) + body,
        struct.pack(">BI", 7, len(body)) + body,
        struct.pack(">BI", 1, len(body)) + body,
        b"",
    )
    with scene.wire() as wire:
        for number, lie in enumerate(lies):
            wire.send(headers(2 * number + 1) + frame(frames.DATA, frames.END_STREAM, 2 * number + 1, lie))
            scene.good_client_goes_on(3)


def test_the_metrics_port_takes_abuse_too(scene: Scene) -> None:
    """Connections that say nothing, or nonsense, do not keep Prometheus from its scrape."""
    host, _, port = scene.served.metrics.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    with ExitStack() as stack:
        for number in range(12):
            connection = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            connection.sendall((b"", b"\xff" * 100, b"GET /metrics HTTP/1.1\r\n")[number % 3])
        assert scene.served.scrape()
        scene.good_client_goes_on()


def test_an_interrupted_server_under_abuse_still_ends_well(tmp_path: Path) -> None:
    """A drain waits for requests, and for nobody who only pretends to send one."""
    publish(tmp_path / "repository", "tiny", "baseline", SCALES["baseline"])
    with serving(tmp_path / "repository", folder=tmp_path) as served, ExitStack() as stack:
        for begin in half_open(Scene(served, None)).values():  # type: ignore[arg-type]
            begin(stack.enter_context(Wire(served.host_and_port, greets=False)))
        os.kill(served.pid, signal.SIGTERM)
        assert served.wait() == 0
        assert served.tracebacks() == []
