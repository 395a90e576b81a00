"""The grpcio carrier, health and reflection over a real socket in this process."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.server.errors import StartError
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.carrier_grpcio import GrpcioCarrier
from flyweight.server.rpc.health import Health
from flyweight.server.rpc.methods import SERVICE_NAMES, all_methods
from flyweight.server.rpc.reflection import Reflection
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.settings import ServerSettings, TlsFiles

PATIENCE_SECONDS = 30
INFER = "/inference.GRPCInferenceService/ModelInfer"
SETTINGS = ServerSettings(Path("unused"), port=0, max_in_flight=2)


class Served:
    """A carrier over fake models, and a channel to it."""

    def __init__(self, bench: Any, settings: ServerSettings = SETTINGS) -> None:
        self.bench, self.health = bench, Health()
        self.reflection = Reflection(SERVICE_NAMES)
        methods = all_methods(
            bench.models, bench.gate, bench.notebook, allow_control=True, is_ready=lambda: True
        )
        self.carrier = GrpcioCarrier(settings, methods, [self.health.register, self.reflection.register])
        self.port = self.carrier.bind()
        self.carrier.start()
        self.channel = grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def call(self, path: str, body: bytes = b"", **options: Any) -> bytes:
        return self.channel.unary_unary(path)(
            body, timeout=options.pop("timeout", PATIENCE_SECONDS), **options
        )

    def close(self) -> None:
        self.channel.close()
        self.carrier.stop(0)
        self.reflection.stop()


@pytest.fixture
def serve(build: Callable[..., Any]) -> Iterator[Callable[..., Served]]:
    running: list[Served] = []

    def start(settings: ServerSettings = SETTINGS, **parts: Any) -> Served:
        running.append(Served(build(**parts), settings))
        return running[-1]

    yield start
    for served in running:
        served.close()


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    return serve()


def status_of(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    assert isinstance(error, grpc.Call)
    return error.code(), error.details() or ""


def test_carries_bytes_there_and_back(served: Served, make_request: Callable[..., ModelInferRequest]) -> None:
    body = served.call(INFER, make_request(version="int8").SerializeToString())
    response = ModelInferResponse.FromString(body)
    assert response.model_version == "int8"
    assert np.frombuffer(response.raw_output_contents[0], np.float32).tolist() == [3, 3, 3, 3]


def test_metadata_reaches_the_plan(served: Served, make_request: Callable[..., ModelInferRequest]) -> None:
    body = served.call(INFER, make_request().SerializeToString(), metadata=(("flyweight-key", "me"),))
    response = ModelInferResponse.FromString(body)
    assert response.parameters["flyweight_reason"].string_param == "sticky"


def test_a_failure_is_a_status_with_a_sentence(
    served: Served, make_request: Callable[..., ModelInferRequest]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request(version="int4").SerializeToString())
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.NOT_FOUND
    assert "'int4'" in sentence


@pytest.mark.parametrize(
    "path",
    [
        "/inference.GRPCInferenceService/TraceSetting",
        "/flyweight.control.v1.ControlService/SetTraffic",
    ],
)
def test_a_declared_rpc_that_is_not_there_is_unimplemented_with_a_sentence(served: Served, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        served.call(path)
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert path.rpartition("/")[2] in sentence


def test_a_stream_that_is_not_there_says_so_too(served: Served) -> None:
    stream = served.channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
    with pytest.raises(grpc.RpcError) as caught:
        next(stream(iter([b""]), timeout=PATIENCE_SECONDS))
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.UNIMPLEMENTED
    assert "ModelStreamInfer" in sentence


def test_a_bug_is_a_bare_internal(
    serve: Callable[..., Served], make_request: Callable[..., ModelInferRequest]
) -> None:
    def fail(_: object) -> dict[str, Any]:
        raise ZeroDivisionError("an inside of ours")

    served = serve(runtimes={"baseline": FakeRuntime(function=fail), "int8": FakeRuntime()})
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request(version="baseline").SerializeToString())
    code, sentence = status_of(caught.value)
    assert code is grpc.StatusCode.INTERNAL
    assert sentence.startswith("internal error; see the server's log (id ")


def test_a_call_without_a_deadline_has_none(served: Served) -> None:
    request = pb.RepositoryModelLoadRequest(model_name="tiny").SerializeToString()
    served.channel.unary_unary("/inference.GRPCInferenceService/RepositoryModelLoad")(request)
    assert served.bench.models.patience == [60.0]


class Stuck:
    """A model that runs until it is let go."""

    def __init__(self) -> None:
        self.entered, self.release = threading.Semaphore(0), threading.Event()

    def __call__(self, inputs: Any) -> dict[str, Any]:
        self.entered.release()
        assert self.release.wait(PATIENCE_SECONDS)
        return {"y": inputs["x"]}


def test_overload_is_refused_with_push_back_while_health_and_metadata_answer(
    serve: Callable[..., Served], make_request: Callable[..., ModelInferRequest]
) -> None:
    stuck = Stuck()
    gate = Gate(2, 2)
    gate.open()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": FakeRuntime()}, gate=gate)
    served.health.serve()
    body = make_request(version="baseline").SerializeToString()
    infer = served.channel.unary_unary(INFER)
    accepted = [infer.future(body, timeout=PATIENCE_SECONDS) for _ in range(2)]
    for _ in accepted:
        assert stuck.entered.acquire(timeout=PATIENCE_SECONDS)
    refused = infer.future(body, timeout=PATIENCE_SECONDS)
    assert refused.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("grpc-retry-pushback-ms", "100") in [tuple(pair) for pair in refused.trailing_metadata()]
    health = health_pb2_grpc.HealthStub(served.channel)
    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    served.call("/inference.GRPCInferenceService/ServerMetadata")
    stuck.release.set()
    for call in accepted:
        assert call.code() is grpc.StatusCode.OK


def test_the_callers_deadline_ends_the_wait_for_a_turn(
    serve: Callable[..., Served], make_request: Callable[..., ModelInferRequest]
) -> None:
    stuck, runtime = Stuck(), FakeRuntime()
    gate = Gate(2, 1)
    gate.open()
    served = serve(runtimes={"baseline": FakeRuntime(function=stuck), "int8": runtime}, gate=gate)
    first = served.channel.unary_unary(INFER).future(
        make_request(version="baseline").SerializeToString(), timeout=PATIENCE_SECONDS
    )
    assert stuck.entered.acquire(timeout=PATIENCE_SECONDS)
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, make_request(version="int8").SerializeToString(), timeout=0.05)
    assert status_of(caught.value)[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    stuck.release.set()
    assert first.code() is grpc.StatusCode.OK
    assert gate.wait_until_empty(PATIENCE_SECONDS)
    assert runtime.runs == 0


def test_a_request_over_the_limit_is_refused(serve: Callable[..., Served]) -> None:
    served = serve(replace(SETTINGS, max_message_bytes=1000))
    with pytest.raises(grpc.RpcError) as caught:
        served.call(INFER, bytes(2000))
    assert status_of(caught.value)[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_a_port_in_use_is_told_in_a_sentence(served: Served, build: Callable[..., Any]) -> None:
    with pytest.raises(StartError, match=f"127.0.0.1:{served.port} cannot be listened on.*--port"):
        Served(build(), replace(SETTINGS, port=served.port))


def test_a_foreign_address_is_told_in_a_sentence(build: Callable[..., Any]) -> None:
    with pytest.raises(StartError, match=r"192\.0\.2\.1:0 cannot be listened on"):
        Served(build(), replace(SETTINGS, host="192.0.2.1"))


def test_health_follows_the_table_and_the_shutdown(served: Served) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)

    def check(name: str) -> int:
        return health.Check(health_pb2.HealthCheckRequest(service=name), timeout=PATIENCE_SECONDS).status

    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    assert check("") == not_serving
    served.health.on_table(served.bench.models.table)
    served.health.serve()
    assert [check(name) for name in ("", "tiny", "slow")] == [serving, serving, not_serving]
    with pytest.raises(grpc.RpcError) as caught:
        check("nothing")
    assert status_of(caught.value)[0] is grpc.StatusCode.NOT_FOUND
    served.health.on_table(RoutingTable())
    assert [check(name) for name in ("", "tiny")] == [serving, not_serving]
    served.health.stop()
    assert check("") == not_serving


def test_health_can_be_watched_by_more_callers_than_there_are_threads(served: Served) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    watches = [health.Watch(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS) for _ in range(40)]
    not_serving, serving = health_pb2.HealthCheckResponse.NOT_SERVING, health_pb2.HealthCheckResponse.SERVING
    assert [next(watch).status for watch in watches] == [not_serving] * 40
    served.health.serve()
    assert [next(watch).status for watch in watches] == [serving] * 40


def test_reflection_tells_every_service_and_message(served: Served) -> None:
    database = ProtoReflectionDescriptorDatabase(served.channel)
    services = set(database.get_services())
    assert services == {
        "inference.GRPCInferenceService",
        "flyweight.control.v1.ControlService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
        "grpc.reflection.v1.ServerReflection",
    }
    pool = DescriptorPool(database)
    for name in services:
        assert pool.FindServiceByName(name).methods
    assert pool.FindMessageTypeByName("inference.ModelInferRequest").fields_by_name["raw_input_contents"]


def test_reflection_answers_by_its_stable_name_too(served: Served) -> None:
    stream = served.channel.stream_stream(
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (response,) = stream(iter([request]), timeout=PATIENCE_SECONDS)
    assert len(response.list_services_response.service) == 5


def test_open_reflection_streams_keep_nobody_else_waiting(served: Served) -> None:
    done = threading.Event()

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        done.wait(PATIENCE_SECONDS)

    stub = reflection_pb2_grpc.ServerReflectionStub(served.channel)
    streams = [stub.ServerReflectionInfo(requests(), timeout=PATIENCE_SECONDS) for _ in range(20)]
    next(streams[0])
    served.call("/inference.GRPCInferenceService/ServerLive")
    done.set()
    for stream in streams:
        stream.cancel()


@pytest.fixture
def tls(tmp_path: Path) -> tuple[trustme.CA, TlsFiles]:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    files = TlsFiles(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(files.key)
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(files.certificate, append=number > 0)
    assert files.client_authority is not None
    authority.cert_pem.write_to_path(files.client_authority)
    return authority, files


def test_tls_with_client_certificates_lets_only_known_clients_in(
    serve: Callable[..., Served], tls: tuple[trustme.CA, TlsFiles]
) -> None:
    authority, files = tls
    served = serve(replace(SETTINGS, tls=files))
    client = authority.issue_cert("client@example.org")
    root = authority.cert_pem.bytes()
    chain = b"".join(blob.bytes() for blob in client.cert_chain_pems)
    known = grpc.ssl_channel_credentials(root, client.private_key_pem.bytes(), chain)
    path = "/inference.GRPCInferenceService/ServerLive"
    with grpc.secure_channel(f"127.0.0.1:{served.port}", known) as channel:
        channel.unary_unary(path)(b"", timeout=PATIENCE_SECONDS)
    stranger = grpc.ssl_channel_credentials(root)
    with grpc.secure_channel(f"127.0.0.1:{served.port}", stranger) as channel, pytest.raises(grpc.RpcError):
        channel.unary_unary(path)(b"", timeout=PATIENCE_SECONDS)


def test_an_unreadable_key_is_named(build: Callable[..., Any], tls: tuple[trustme.CA, TlsFiles]) -> None:
    files = replace(tls[1], key=tls[1].key.with_name("missing.key"))
    with pytest.raises(StartError, match=r"missing\.key, the TLS key, cannot be read"):
        Served(build(), replace(SETTINGS, tls=files))


def test_tls_files_that_are_no_pem_are_named(
    build: Callable[..., Any], tls: tuple[trustme.CA, TlsFiles]
) -> None:
    files = tls[1]
    files.certificate.write_text("no certificate")
    with pytest.raises(
        StartError, match=r"certificate .*server\.pem and the key .*server\.key.* cannot be used"
    ):
        Served(build(), replace(SETTINGS, tls=files))
