"""The fake server, how it is started, and its one border with gRPC."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import grpc

from flyweight.client.channel import SERVICE
from flyweight.client.errors import ClientError, Unavailable
from flyweight.client.testing.answers import METHODS, Answers
from flyweight.client.testing.faults import Fault, Faults
from flyweight.client.testing.model import FakeModel, Function
from flyweight.protos.inference import grpc_service_pb2 as pb

# Enough for tests of concurrent callers; a call holds a thread only while its function runs.
_THREADS: Final = 8

# An idle server stops at once; without grace it cuts connections, which gRPC's core logs at the client.
_GRACE_SECONDS: Final = 1.0

# A fake takes what a test sends; and a port that another process listens on is an error, not shared.
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Received:
    """A ModelInfer request, and the metadata that came with it."""

    request: pb.ModelInferRequest
    metadata: Mapping[str, str]


@dataclass(slots=True)
class FakeServer:
    """A running fake; `serve_fake` makes one.

    Attributes:
        address: HOST:PORT to give to a client.
        models: what it serves; a test may change it while the server runs.
        received: every ModelInfer request that arrived, in order, those that failed included.
    """

    address: str
    models: dict[str, FakeModel]
    received: list[Received] = field(default_factory=list)
    _faults: Faults = field(default_factory=Faults, init=False)

    @property
    def requests(self) -> list[pb.ModelInferRequest]:
        """The requests in `received`, without their metadata."""
        return [received.request for received in self.received]

    def fail(self, fault: Fault, times: int = 1) -> None:
        """Have the next `times` calls fail."""
        self._faults.add(fault, times)


@contextmanager
def serve_fake(
    models: Mapping[str, FakeModel | Function],
    *,
    address: str = "127.0.0.1:0",
    credentials: grpc.ServerCredentials | None = None,
) -> Iterator[FakeServer]:
    """Serve `models` until the block ends.

    Args:
        models: a function of inputs by name to outputs by name, or a `FakeModel` for variants and metadata.
        address: where to listen; port 0 takes a free one.
        credentials: serve TLS with these.

    Raises:
        Unavailable: nothing can listen at `address`.
    """
    answers = Answers({name: _model(model) for name, model in models.items()})
    fake = FakeServer(address, answers.models)
    server = grpc.server(ThreadPoolExecutor(_THREADS, "fake-server"), options=_OPTIONS)
    server.add_generic_rpc_handlers((_handlers(fake, answers),))
    fake.address = f"{address.rpartition(':')[0]}:{_listen(server, address, credentials)}"
    server.start()
    try:
        yield fake
    finally:
        server.stop(_GRACE_SECONDS).wait()


def _listen(server: grpc.Server, address: str, credentials: grpc.ServerCredentials | None) -> int:
    try:
        if credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise Unavailable(
            f"the fake server cannot listen at {address}; take port 0 for a free one."
        ) from error


def _model(model: FakeModel | Function) -> FakeModel:
    return model if isinstance(model, FakeModel) else FakeModel({"baseline": model})


def _handlers(fake: FakeServer, answers: Answers) -> "grpc.GenericRpcHandler[Any, Any]":
    handlers = {
        method: grpc.unary_unary_rpc_method_handler(
            partial(_serve, fake, answers, method),
            request_deserializer=request.FromString,
            response_serializer=_serialize,
        )
        for method, (request, _) in METHODS.items()
    }
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


def _serialize(response: Any) -> bytes:
    data: bytes = response.SerializeToString()
    return data


def _serve(
    fake: FakeServer, answers: Answers, method: str, request: Any, context: grpc.ServicerContext
) -> Any:
    """Answer one call: note it down, fail if a test asked for it, else ask `answers`."""
    if isinstance(request, pb.ModelInferRequest):
        metadata = {key: str(value) for key, value in context.invocation_metadata()}
        fake.received.append(Received(request, metadata))
    fault = fake._faults.take(method)
    if fault is not None:
        _abort(fault, context)
    try:
        return METHODS[method][1](answers, request)
    except ClientError as error:
        context.abort(grpc.StatusCode[error.code], str(error))


def _abort(fault: Fault, context: grpc.ServicerContext) -> None:
    if fault.pushback_ms is not None:
        context.set_trailing_metadata((("grpc-retry-pushback-ms", str(fault.pushback_ms)),))
    context.abort(grpc.StatusCode[fault.code], fault.details)
