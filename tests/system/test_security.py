"""A real server with callers it knows: what they may do, what is logged of them, and where it connects to."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.tensors import encode_inputs

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 60
COMMAND = Path(sys.executable).with_name("flyweight")
SERVICE = "/inference.GRPCInferenceService/"
OK, UNAUTHENTICATED, DENIED = (
    grpc.StatusCode.OK,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
)
# Bytes that a log would show if it showed contents: as text, and as the number whose bytes they are.
SECRET = b"hunter2!" * 2
SECRET_TOKEN = "hunter2-token"


def infer_body(values: Any = None) -> bytes:
    request = pb.ModelInferRequest(model_name="tiny", id="request-1")
    encode_inputs(request, {"x": np.ones((1, 4), np.float32) if values is None else values})
    return request.SerializeToString()


class Caller:
    """Somebody with a channel, and perhaps a token."""

    def __init__(self, channel: grpc.Channel, token: str = "") -> None:
        self.channel = channel
        self.metadata = [("authorization", f"Bearer {token}")] if token else []

    def code(self, path: str, body: bytes = b"") -> grpc.StatusCode:
        return self.ask(path, body)[0]

    def ask(self, path: str, body: bytes = b"") -> tuple[grpc.StatusCode, str]:
        call = self.channel.unary_unary(path if "/" in path else SERVICE + path).future(
            body, timeout=PATIENCE_SECONDS, metadata=self.metadata
        )
        return call.code(), call.details() or ""

    def stream_code(self, path: str, body: bytes) -> grpc.StatusCode:
        call = self.channel.stream_stream(path)(
            iter([body]), timeout=PATIENCE_SECONDS, metadata=self.metadata
        )
        try:
            next(call)
        except grpc.RpcError:
            code: grpc.StatusCode = call.code()
            return code
        call.cancel()
        return OK


@pytest.fixture
def connect() -> Iterator[Callable[..., Caller]]:
    """Return a function that makes callers of an address, each with a connection of its own."""
    channels: list[grpc.Channel] = []

    def make(address: str, token: str = "", credentials: grpc.ChannelCredentials | None = None) -> Caller:
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels.append(
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )
        return Caller(channels[-1], token)

    yield make
    for channel in channels:
        channel.close()


def make_token(name: str, *roles: str) -> tuple[str, str]:
    """Return a token, and the caller's entry for the access file, as the command prints them."""
    options = [part for role in roles for part in ("--role", role)]
    done = subprocess.run(
        [COMMAND, "token", "--name", name, *options],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_SECONDS,
    )
    return done.stdout.strip(), done.stderr


@pytest.fixture
def access(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Return an access file with a caller for each role, and their tokens by role."""
    made = {role: make_token(f"the-{role}", role) for role in ("infer", "observe", "control")}
    path = tmp_path / "access.yaml"
    path.write_text("callers:\n" + "".join(entry for _, entry in made.values()))
    return path, {role: token for role, (token, _) in made.items()}


def test_roles_decide_what_a_caller_may_do(
    start_server: Callable[..., Any],
    server_repository: Path,
    access: tuple[Path, dict[str, str]],
    connect: Callable[..., Caller],
) -> None:
    path, tokens = access
    address = start_server(server_repository, "--access", path).address
    callers = {role: connect(address, token) for role, token in tokens.items()}
    callers |= {"nobody": connect(address), "forger": connect(address, "wrong")}
    unload = pb.RepositoryModelUnloadRequest(model_name="tiny").SerializeToString()
    metadata = pb.ModelMetadataRequest(name="tiny").SerializeToString()

    def codes(rpc: str, body: bytes = b"") -> list[grpc.StatusCode]:
        return [caller.code(rpc, body) for caller in callers.values()]

    assert codes("ModelInfer", infer_body()) == [OK, DENIED, DENIED, UNAUTHENTICATED, UNAUTHENTICATED]
    assert codes("ModelStatistics") == [DENIED, OK, DENIED, UNAUTHENTICATED, UNAUTHENTICATED]
    assert codes("ModelMetadata", metadata) == [OK, OK, OK, UNAUTHENTICATED, UNAUTHENTICATED]
    assert codes("ServerLive") == [OK] * 5
    assert codes("RepositoryModelUnload", unload) == [DENIED, DENIED, OK, UNAUTHENTICATED, UNAUTHENTICATED]


def test_streams_health_and_reflection_are_guarded_alike(
    start_server: Callable[..., Any],
    server_repository: Path,
    access: tuple[Path, dict[str, str]],
    connect: Callable[..., Caller],
) -> None:
    path, tokens = access
    address = start_server(server_repository, "--access", path).address
    callers = [connect(address, tokens["infer"]), connect(address, tokens["observe"]), connect(address)]
    stream = f"{SERVICE}ModelStreamInfer"
    assert [each.stream_code(stream, infer_body()) for each in callers] == [OK, DENIED, UNAUTHENTICATED]
    question = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    for version in ("v1", "v1alpha"):
        reflection = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        assert [each.stream_code(reflection, question) for each in callers] == [DENIED, OK, UNAUTHENTICATED]
    health = health_pb2_grpc.HealthStub(callers[-1].channel)
    request, serving = health_pb2.HealthCheckRequest(), health_pb2.HealthCheckResponse.SERVING
    assert health.Check(request, timeout=PATIENCE_SECONDS).status == serving
    assert next(health.Watch(request, timeout=PATIENCE_SECONDS)).status == serving


def test_the_access_file_is_followed_and_a_broken_one_is_not(
    start_server: Callable[..., Any],
    server_repository: Path,
    access: tuple[Path, dict[str, str]],
    connect: Callable[..., Caller],
    wait_for: Callable[..., Any],
) -> None:
    path, tokens = access
    server = start_server(server_repository, "--access", path)
    old = connect(server.address, tokens["infer"])
    assert old.code("ModelInfer", infer_body()) is OK
    token, entry = make_token("new", "infer")
    new = connect(server.address, token)
    beside = path.with_suffix(".new")
    beside.write_text(f"callers:\n{entry}")
    beside.replace(path)
    wait_for(lambda: new.code("ModelInfer", infer_body()), lambda code: code is OK)
    assert old.code("ModelInfer", infer_body()) is UNAUTHENTICATED
    path.write_text("callers: [")
    wait_for(
        lambda: (new.code("ModelInfer", infer_body()), server.log.read_text())[1],
        lambda log: "is not valid YAML" in log,
    )
    assert new.code("ModelInfer", infer_body()) is OK


@pytest.mark.parametrize("text", ["callers: [", "", "callers: [{name: a, roles: [root], certificates: [a]}]"])
def test_a_server_does_not_start_with_an_access_file_it_cannot_read(
    start_server: Callable[..., Any], server_repository: Path, tmp_path: Path, text: str
) -> None:
    (tmp_path / "access.yaml").write_text(text)
    server = start_server(server_repository, "--access", tmp_path / "access.yaml", ready=False)
    assert server.wait() == 2
    said = server.log.read_text()
    assert "flyweight: error: The access file" in said
    assert "Traceback" not in said


class Pki:
    """An authority, the server's files from it, and clients' credentials."""

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.folder = folder
        self.issue()
        (folder / "ca.pem").write_bytes(self.authority.cert_pem.bytes())

    def issue(self) -> None:
        """Write a new certificate over the old, file by file."""
        certificate = self.authority.issue_cert("127.0.0.1")
        (self.folder / "key.pem").write_bytes(certificate.private_key_pem.bytes())
        (self.folder / "cert.pem").write_bytes(b"".join(pem.bytes() for pem in certificate.cert_chain_pems))

    @property
    def options(self) -> tuple[str, ...]:
        names = {"--tls-cert": "cert.pem", "--tls-key": "key.pem", "--tls-client-ca": "ca.pem"}
        return tuple(part for option, name in names.items() for part in (option, str(self.folder / name)))

    def client(self, name: str) -> grpc.ChannelCredentials:
        certificate = self.authority.issue_cert(name)
        chain = b"".join(pem.bytes() for pem in certificate.cert_chain_pems)
        return grpc.ssl_channel_credentials(
            self.authority.cert_pem.bytes(), certificate.private_key_pem.bytes(), chain
        )


def test_a_certificates_name_has_the_roles_that_the_access_file_gives_it(
    start_server: Callable[..., Any],
    server_repository: Path,
    tmp_path: Path,
    connect: Callable[..., Caller],
) -> None:
    pki = Pki(tmp_path)
    (tmp_path / "access.yaml").write_text(
        "callers: [{name: shop, roles: [infer], certificates: [shop.example.org]}]"
    )
    server = start_server(server_repository, "--access", tmp_path / "access.yaml", *pki.options)
    shop = connect(server.address, credentials=pki.client("shop.example.org"))
    stranger = connect(server.address, credentials=pki.client("other.example.org"))
    assert shop.code("ModelInfer", infer_body()) is OK
    assert shop.code("ModelStatistics") is DENIED
    assert stranger.code("ModelInfer", infer_body()) is UNAUTHENTICATED
    assert stranger.code("ServerReady") is OK


def test_a_certificate_is_renewed_under_load_and_no_call_is_lost(
    start_server: Callable[..., Any],
    server_repository: Path,
    tmp_path: Path,
    connect: Callable[..., Caller],
) -> None:
    pki = Pki(tmp_path)
    server = start_server(server_repository, *pki.options)
    steady = connect(server.address, credentials=pki.client("steady.example.org"))
    for _ in range(5):
        pki.issue()
        newcomer = connect(server.address, credentials=pki.client("newcomer.example.org"))
        assert newcomer.code("ModelInfer", infer_body()) is OK
        assert steady.code("ModelInfer", infer_body()) is OK
    assert server.log.read_text().count("Read ") >= 1


def test_the_access_log_names_a_caller_who_lacks_the_role(
    start_server: Callable[..., Any],
    server_repository: Path,
    access: tuple[Path, dict[str, str]],
    connect: Callable[..., Caller],
    wait_for: Callable[..., Any],
) -> None:
    path, tokens = access
    server = start_server(server_repository, "--access", path, "--access-log")
    assert connect(server.address, tokens["infer"]).code("ModelStatistics") is DENIED
    log = wait_for(server.log.read_text, lambda text: "PERMISSION_DENIED" in text)
    assert re.search(r"method=ModelStatistics code=PERMISSION_DENIED .* caller=the-infer\b", log)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_neither_contents_nor_tokens_are_ever_logged(
    start_server: Callable[..., Any],
    server_repository: Path,
    access: tuple[Path, dict[str, str]],
    connect: Callable[..., Caller],
    log_format: str,
) -> None:
    path, tokens = access
    options = ("--access", path, "--log-level", "debug", "--log-format", log_format, "--access-log")
    server = start_server(server_repository, *options)
    secret = np.frombuffer(SECRET, np.float32).reshape(1, 4)
    good, odd = connect(server.address, tokens["infer"]), connect(server.address, SECRET_TOKEN)
    assert good.code("ModelInfer", infer_body(secret)) is OK
    said = [
        odd.ask("ModelInfer", infer_body(secret)),
        # Of the wrong type, shape and length; and nothing that could be parsed.
        good.ask("ModelInfer", infer_body(secret.astype(np.float64))),
        good.ask("ModelInfer", infer_body(secret.reshape(4))),
        good.ask("ModelInfer", infer_body(np.array([[SECRET] * 4], object))),
        good.ask("ModelInfer", infer_body(secret)[:-3]),
        good.ask("ModelInfer", SECRET),
        good.ask("ModelStatistics"),
        connect(server.address, tokens["infer"] + "x").ask("ModelInfer", infer_body(secret)),
    ]
    assert all(code is not OK for code, _ in said)
    server.signal()
    assert server.wait() == 0
    written = server.log.read_text() + "\n".join(sentence for _, sentence in said)
    number = str(secret[0, 0])
    for hidden in ("hunter2", number, number[:6], tokens["infer"], repr(SECRET)[2:-1]):
        assert hidden not in written
    if log_format == "json":
        assert all(json.loads(line) for line in server.log.read_text().splitlines())


def test_an_option_can_be_an_environment_variable(
    start_server: Callable[..., Any],
    server_repository: Path,
    connect: Callable[..., Caller],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FLYWEIGHT_SERVE_ALLOW_CONTROL", "no")
    monkeypatch.setenv("FLYWEIGHT_SERVE_REPOSITORY", str(server_repository))
    caller = connect(start_server().address)
    unload = pb.RepositoryModelUnloadRequest(model_name="tiny").SerializeToString()
    code, sentence = caller.ask("RepositoryModelUnload", unload)
    assert code is DENIED
    assert "--allow-control" in sentence


def ports_of(process: psutil.Process) -> set[int]:
    """Return our end of every socket of a process and its children."""
    found: set[int] = set()
    for one in (process, *process.children(recursive=True)):
        # A child that ended meanwhile holds no socket.
        with suppress(psutil.NoSuchProcess):
            found |= {each.laddr.port for each in one.net_connections(kind="inet")}
    return found


def test_no_one_is_connected_to(
    start_server: Callable[..., Any], server_repository: Path, connect: Callable[..., Caller]
) -> None:
    """Every socket of the server and its children is one of its ports, or a connection to one of them."""
    server = start_server(server_repository)
    ports = {
        int(text.removesuffix("/metrics").rpartition(":")[2]) for text in (server.address, server.metrics)
    }
    caller = connect(server.address)
    process = psutil.Process(server.process.pid)
    for _ in range(50):
        assert caller.code("ModelInfer", infer_body()) is OK
        server.scrape()
        assert ports_of(process) <= ports


@pytest.fixture
def tracer() -> str:
    """Return the program that records system calls; skip where there is none, or none is allowed."""
    found = shutil.which("strace")
    if found is None or subprocess.run([found, "-qq", "-e", "none", "true"], check=False).returncode:
        pytest.skip("no strace that may trace")
    return found


def test_no_one_is_ever_called(server_repository: Path, tmp_path: Path, tracer: str) -> None:
    """No system call from the server's start to its end connects or sends to another machine."""
    record = tmp_path / "calls"
    # -D: the server is our child and the tracer its own, so that signals and the exit code are the server's.
    command = [tracer, "-D", "-f", "-qq", "-e", "trace=listen,connect,sendto,sendmsg,sendmmsg", "-o", record]
    with subprocess.Popen(
        [*command, COMMAND, "serve", "--port", "0", "--metrics-port", "0", server_repository],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().split()[2].removeprefix("grpc=")
            with grpc.insecure_channel(address) as channel:
                assert Caller(channel).code("ModelInfer", infer_body()) is OK
            server.terminate()
            _, said = server.communicate(timeout=PATIENCE_SECONDS)
        finally:
            server.kill()
    assert server.returncode == 0, said
    calls = record.read_text().splitlines()
    assert any("listen(" in call for call in calls)
    abroad = [
        call
        for call in calls
        if re.search(r"sin6?_addr", call) and not re.search(r'"(127\.|::1")', call) and "listen(" not in call
    ]
    assert abroad == []
