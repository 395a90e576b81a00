"""Every RPC of our own services by its full name, with the handler that answers it."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import ServiceDescriptor

from flyweight.protos.control.v1 import control_pb2
from flyweight.protos.inference import grpc_service_pb2
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Handler
from flyweight.server.rpc.control import Control
from flyweight.server.rpc.inference import Inference
from flyweight.server.rpc.liveness import Liveness
from flyweight.server.rpc.metadata import Metadata
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.records import Recorder, Recorders
from flyweight.server.rpc.repository import Repository
from flyweight.server.rpc.statistics import Statistics
from flyweight.server.rpc.unsupported import unsupported

_INFERENCE: Final = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_CONTROL: Final = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
SERVICE_NAMES: Final = (_INFERENCE.full_name, _CONTROL.full_name)

# These take as long as a model does; all others are answered from memory.
_LARGE: Final = frozenset({"ModelInfer", "RepositoryModelLoad", "RepositoryModelUnload"})


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC: its full name ("/package.Service/Method"), its handler, and whether either side streams.

    A carrier answers `is_small` methods even while inference keeps it busy.
    """

    path: str
    handler: Handler
    client_streaming: bool = False
    server_streaming: bool = False
    is_small: bool = True


def all_methods(
    models: Models, gate: Gate, recorder: Recorder, *, allow_control: bool, is_ready: Callable[[], bool]
) -> list[Method]:
    """Return every RPC of our own services; those that are not there yet refuse with a sentence."""
    control = Control(models)
    liveness, metadata = Liveness(models, is_ready), Metadata(models)
    repository, statistics = Repository(models, allow_control=allow_control), Statistics(models)
    inference = Inference(models, gate, Recorders((recorder, statistics)))
    inference_handlers: dict[str, Handler] = {
        "ServerLive": liveness.server_live,
        "ServerReady": liveness.server_ready,
        "ModelReady": liveness.model_ready,
        "ServerMetadata": metadata.server_metadata,
        "ModelMetadata": metadata.model_metadata,
        "ModelConfig": metadata.model_config,
        "ModelInfer": inference.model_infer,
        "ModelStatistics": statistics.model_statistics,
        "RepositoryIndex": repository.index,
        "RepositoryModelLoad": repository.load,
        "RepositoryModelUnload": repository.unload,
    }
    control_handlers: dict[str, Handler] = {
        "ListVariants": control.list_variants,
        "GetTraffic": control.get_traffic,
    }
    return [*_methods(_INFERENCE, inference_handlers), *_methods(_CONTROL, control_handlers)]


def _methods(service: ServiceDescriptor, handlers: Mapping[str, Handler]) -> Iterator[Method]:
    for method in service.methods:
        path = f"/{service.full_name}/{method.name}"
        yield Method(
            path=path,
            handler=handlers.get(method.name) or unsupported(path),
            client_streaming=method.client_streaming,
            server_streaming=method.server_streaming,
            is_small=method.name not in _LARGE,
        )
