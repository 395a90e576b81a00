"""Every call of the protocol, described without doing it: what to send, how to read the answer.

A `Call` is a value. The sync and the asyncio client differ only in how they carry one out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypedDict, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from flyweight.client import responses
from flyweight.client.channel import SERVICE
from flyweight.client.errors import ClientError, DeadlineExceeded, InvalidRequest, NotFound, Unavailable
from flyweight.client.results import (
    ModelInfo,
    Prediction,
    Scalar,
    ServerInfo,
    VariantState,
    VariantStatistics,
    VariantTraffic,
)
from flyweight.protos.control.v1 import control_pb2 as control
from flyweight.protos.errors import TensorError
from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.tensors import encode_inputs, parameter

T = TypeVar("T")

CONTROL_SERVICE = "flyweight.control.v1.ControlService"
KEY_PARAMETER = "flyweight_key"


class CallOptions(TypedDict, total=False):
    """What every call takes besides its own arguments.

    Attributes:
        timeout_seconds: this call's deadline, retries included; None waits for ever. The client's own when
            it is left out.
        metadata: headers of this call, added to the client's.
    """

    timeout_seconds: float | None
    metadata: Mapping[str, str]


class PredictOptions(CallOptions, total=False):
    """What `predict` takes besides the model and its inputs.

    Attributes:
        variant: ask this variant and no other; None leaves the choice to the server's traffic split.
        key: calls with the same key are answered by the same variant while the split stays as it is: a
            user's id, for example. Where the server's traffic.yaml names a sticky parameter of its own, give
            the key in `parameters` under that name.
        outputs: the outputs to return, in this order; all of the model's when left out.
        parameters: request parameters for the server or the model.
        request_id: comes back in the answer.
    """

    variant: str | None
    key: str | int | None
    outputs: Sequence[str] | None
    parameters: Mapping[str, Scalar] | None
    request_id: str


class Message(Protocol):
    """What a call needs of a protobuf message."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return the message's bytes."""
        ...


def serialize(request: Message) -> bytes:
    """Return a request's bytes."""
    return request.SerializeToString()


def _fail(error: ClientError) -> Any:
    raise error


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call.

    Attributes:
        method: the RPC's name.
        request: the message to send.
        decode: makes the response message of its bytes.
        parse: makes the result of the response message.
        subject: what the call is about, for the sentence of an error: "model 'digits'"; empty for the server.
        recover: gives the result of a call that failed, or raises.
        service: the full name of the gRPC service.
        takes: the options that go with it.
    """

    method: str
    request: Message
    decode: Callable[[bytes], Any]
    parse: Callable[[Any], T]
    subject: str = ""
    recover: Callable[[ClientError], T] = _fail
    service: str = SERVICE
    takes: frozenset[str] = CallOptions.__optional_keys__

    @property
    def path(self) -> str:
        """The HTTP/2 path of the RPC."""
        return f"/{self.service}/{self.method}"


def _no_if_absent(error: ClientError) -> bool:
    """Answer no for a server that cannot be asked and for a model that is not there."""
    if isinstance(error, Unavailable | DeadlineExceeded | NotFound):
        return False
    raise error


def _subject(model: str, variant: str = "") -> str:
    return f"model {model!r}" + (f", variant {variant!r}" if variant else "")


def live() -> Call[bool]:
    """Ask whether the server answers at all."""
    return Call(
        "ServerLive",
        pb.ServerLiveRequest(),
        pb.ServerLiveResponse.FromString,
        lambda r: r.live,
        "",
        _no_if_absent,
    )


def ready() -> Call[bool]:
    """Ask whether every model of the server is ready."""
    request, decode = pb.ServerReadyRequest(), pb.ServerReadyResponse.FromString
    return Call("ServerReady", request, decode, lambda r: r.ready, "", _no_if_absent)


def model_ready(model: str, variant: str) -> Call[bool]:
    """Ask whether a model, or one variant of it, is ready."""
    request, decode = pb.ModelReadyRequest(name=model, version=variant), pb.ModelReadyResponse.FromString
    return Call("ModelReady", request, decode, lambda r: r.ready, _subject(model, variant), _no_if_absent)


def server() -> Call[ServerInfo]:
    """Ask the server who it is."""
    decode = pb.ServerMetadataResponse.FromString
    return Call("ServerMetadata", pb.ServerMetadataRequest(), decode, responses.server_info)


def model(name: str, variant: str) -> Call[ModelInfo]:
    """Ask what goes into a model and what comes out."""
    request = pb.ModelMetadataRequest(name=name, version=variant)
    decode = pb.ModelMetadataResponse.FromString
    return Call("ModelMetadata", request, decode, responses.model_info, _subject(name, variant))


def model_for_predict(name: str) -> Call[ModelInfo]:
    """Ask what `model` asks, on behalf of a `predict` and with its options."""
    return replace(model(name, ""), takes=PredictOptions.__optional_keys__)


def config(name: str, variant: str) -> Call[ModelConfig]:
    """Ask for Triton's configuration of a model."""
    request = pb.ModelConfigRequest(name=name, version=variant)
    decode = pb.ModelConfigResponse.FromString
    return Call("ModelConfig", request, decode, lambda r: r.config, _subject(name, variant))


def models(*, ready_only: bool) -> Call[tuple[VariantState, ...]]:
    """Ask for the repository's index."""
    request = pb.RepositoryIndexRequest(ready=ready_only)
    return Call("RepositoryIndex", request, pb.RepositoryIndexResponse.FromString, responses.variant_states)


def load(name: str, config: str | None = None, files: Mapping[str, bytes] | None = None) -> Call[None]:
    """Ask the server to load a model, as its repository has it or as it is sent along."""
    request = pb.RepositoryModelLoadRequest(model_name=name)
    if config is not None:
        request.parameters["config"].string_param = config
    for path, content in (files or {}).items():
        request.parameters[f"file:{path}"].bytes_param = content
    decode = pb.RepositoryModelLoadResponse.FromString
    return Call("RepositoryModelLoad", request, decode, lambda _: None, _subject(name))


def unload(name: str) -> Call[None]:
    """Ask the server to unload a model."""
    request = pb.RepositoryModelUnloadRequest(model_name=name)
    decode = pb.RepositoryModelUnloadResponse.FromString
    return Call("RepositoryModelUnload", request, decode, lambda _: None, _subject(name))


def traffic(name: str) -> Call[tuple[VariantTraffic, ...]]:
    """Ask flyweight's control service how variants share the traffic of a model, or of each."""
    request = control.ListVariantsRequest(model=name)
    decode = control.ListVariantsResponse.FromString
    subject = _subject(name) if name else ""
    call = Call("ListVariants", request, decode, responses.variant_traffic, subject)
    return replace(call, service=CONTROL_SERVICE)


def statistics(name: str, variant: str) -> Call[tuple[VariantStatistics, ...]]:
    """Ask what the server counted; for every model when `name` is empty."""
    request = pb.ModelStatisticsRequest(name=name, version=variant)
    decode = pb.ModelStatisticsResponse.FromString
    subject = _subject(name, variant) if name else ""
    return Call("ModelStatistics", request, decode, responses.variant_statistics, subject)


def predict(name: str, inputs: Mapping[str, ArrayLike], options: PredictOptions) -> Call[Prediction]:
    """Ask a model for its outputs.

    Raises:
        InvalidRequest: an input or a parameter is of a type that the protocol does not have.
    """
    variant = options.get("variant") or ""
    subject = _subject(name, variant)
    request = pb.ModelInferRequest(model_name=name, model_version=variant, id=options.get("request_id", ""))
    try:
        encode_inputs(request, {key: np.asarray(value) for key, value in inputs.items()})
        for key, value in _parameters(options).items():
            request.parameters[key].CopyFrom(parameter(value))
    except (TensorError, TypeError, ValueError) as error:
        raise InvalidRequest(f"the request for {subject} was not sent: {error}") from error
    for output in options.get("outputs") or ():
        request.outputs.add(name=output)
    call = Call("ModelInfer", request, pb.ModelInferResponse.FromString, responses.prediction, subject)
    return replace(call, takes=PredictOptions.__optional_keys__)


def _parameters(options: PredictOptions) -> dict[str, Scalar]:
    found = dict(options.get("parameters") or {})
    key = options.get("key")
    if key is not None:
        found[KEY_PARAMETER] = key
    return found
