"""Every RPC of our own services by its full name, with the handler that answers it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from flyweight.protos.control.v1 import control_pb2
from flyweight.protos.inference import grpc_service_pb2
from flyweight.server.rpc.call import Handler
from flyweight.server.rpc.control import Control
from flyweight.server.rpc.extensions import Extensions
from flyweight.server.rpc.inference import Inference
from flyweight.server.rpc.inside import Inside
from flyweight.server.rpc.liveness import Liveness
from flyweight.server.rpc.metadata import Metadata
from flyweight.server.rpc.method import Deferred, Method, Streaming, Unary
from flyweight.server.rpc.repository import Repository
from flyweight.server.rpc.slow import SlowCalls
from flyweight.server.rpc.statistics import Statistics
from flyweight.server.rpc.step_records import StepRecords
from flyweight.server.rpc.streaming import InferStreams
from flyweight.server.rpc.unsupported import refused_stream, unsupported

_INFERENCE: Final = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
SERVICE_NAMES: Final = (_INFERENCE.full_name, _CONTROL.full_name)

# These answer when a model is loaded or unloaded, or a plan in force.
_SLOW: Final = frozenset(
    {"RepositoryModelLoad", "RepositoryModelUnload", "SetTraffic", "Promote", "Rollback"}
)


def all_methods(
    inside: Inside,
    extensions: Extensions | None = None,
    *,
    allow_control: bool,
    is_ready: Callable[[], bool],
) -> list[Method]:
    """Return every RPC of our own services; those that are not there yet refuse with a sentence."""
    extensions = extensions or Extensions()
    models = inside.models
    slow_calls = SlowCalls()
    control = Control(models, slow_calls)
    liveness, metadata = Liveness(models, is_ready), Metadata(models, extensions.names())
    repository = Repository(models, slow_calls, allow_control=allow_control)
    statistics = Statistics(models, inside.tallies)
    models.watch_steps(StepRecords(models, inside.tallies).record)
    inference = Inference(replace(inside, tracer=extensions.tracer))
    inference_handlers: dict[str, Handler] = {
        "ServerLive": liveness.server_live,
        "ServerReady": liveness.server_ready,
        "ModelReady": liveness.model_ready,
        "ServerMetadata": metadata.server_metadata,
        "ModelMetadata": metadata.model_metadata,
        "ModelConfig": metadata.model_config,
        "ModelStatistics": statistics.model_statistics,
        "RepositoryIndex": repository.index,
        "RepositoryModelLoad": repository.load,
        "RepositoryModelUnload": repository.unload,
        **extensions.handlers(models, allow_control=allow_control),
    }
    control_handlers: dict[str, Handler] = {
        "ListVariants": control.list_variants,
        "GetTraffic": control.get_traffic,
        "SetTraffic": control.set_traffic,
        "Promote": control.promote,
        "Rollback": control.roll_back,
    }
    others: list[Method] = [
        Deferred(f"/{_INFERENCE.full_name}/ModelInfer", inference.model_infer),
        Streaming(f"/{_INFERENCE.full_name}/ModelStreamInfer", InferStreams(inference)),
    ]
    unary = [*_methods(_INFERENCE, inference_handlers), *_methods(_CONTROL, control_handlers)]
    taken = {method.path for method in others}
    return [*others, *(method for method in unary if method.path not in taken)]


def _methods(service: ServiceDescriptor, answered: Mapping[str, Handler]) -> Iterator[Method]:
    for method in service.methods:
        path = f"/{service.full_name}/{method.name}"
        handler = answered.get(method.name)
        if handler is not None:
            yield Unary(path, handler, is_slow=method.name in _SLOW)
        elif method.client_streaming or method.server_streaming:
            yield Streaming(path, refused_stream(path))
        else:
            yield Unary(path, unsupported(path))
