"""What the fake server answers: requests in, responses out, nothing of gRPC."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from flyweight.client import responses
from flyweight.client.errors import InvalidRequest, NotFound
from flyweight.client.results import Array, TensorInfo
from flyweight.client.testing.model import FakeModel
from flyweight.protos.errors import TensorError
from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.tensors import decode_tensors, encode_outputs, parameter

Tensors = list[pb.ModelMetadataResponse.TensorMetadata]


@dataclass(slots=True)
class Answers:
    """Answers from `models`; expected failures are raised as `ClientError`, whose `code` the caller gets."""

    models: dict[str, FakeModel]
    unloaded: set[str] = field(default_factory=set)
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def server_live(self, _: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Say yes."""
        return pb.ServerLiveResponse(live=True)

    def server_ready(self, _: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Say yes, unless a model is unloaded."""
        return pb.ServerReadyResponse(ready=not self.unloaded)

    def server_metadata(self, _: pb.ServerMetadataRequest) -> pb.ServerMetadataResponse:
        """Say that this is a fake."""
        return pb.ServerMetadataResponse(name="flyweight-fake", version=version("flyweight"))

    def model_ready(self, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Say whether a model is loaded and has the variant."""
        model = self._model(request.name, request.version)
        return pb.ModelReadyResponse(ready=model is not None and request.name not in self.unloaded)

    def model_metadata(self, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Describe a model as its `FakeModel` says."""
        model = self._model(request.name, request.version)
        return pb.ModelMetadataResponse(
            name=request.name,
            versions=list(model.variants),
            platform="python",
            inputs=_metadata(model.inputs),
            outputs=_metadata(model.outputs),
        )

    def model_config(self, request: pb.ModelConfigRequest) -> pb.ModelConfigResponse:
        """Give a configuration with no more than the name."""
        self._model(request.name, request.version)
        return pb.ModelConfigResponse(config=ModelConfig(name=request.name, platform="python"))

    def repository_index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """List every variant."""
        response = pb.RepositoryIndexResponse()
        for name, model in self.models.items():
            ready = name not in self.unloaded
            state, reason = ("READY", "") if ready else ("UNAVAILABLE", "unloaded")
            for variant in model.variants if ready or not request.ready else ():
                response.models.add(name=name, version=variant, state=state, reason=reason)
        return response

    def load(self, request: pb.RepositoryModelLoadRequest) -> pb.RepositoryModelLoadResponse:
        """Make a model ready."""
        self._model(request.model_name, "")
        self.unloaded.discard(request.model_name)
        return pb.RepositoryModelLoadResponse()

    def unload(self, request: pb.RepositoryModelUnloadRequest) -> pb.RepositoryModelUnloadResponse:
        """Make a model not ready; requests for it are NOT_FOUND."""
        self._model(request.model_name, "")
        self.unloaded.add(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    def statistics(self, request: pb.ModelStatisticsRequest) -> pb.ModelStatisticsResponse:
        """Count the requests of each variant."""
        if request.name:
            self._model(request.name, request.version)
        response = pb.ModelStatisticsResponse()
        for name, model in self.models.items():
            for variant in model.variants:
                if request.name in ("", name) and request.version in ("", variant):
                    count = self.counts[name, variant]
                    response.model_stats.add(
                        name=name, version=variant, inference_count=count, execution_count=count
                    )
        return response

    def infer(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Decode, call the variant's function, encode."""
        name = request.model_name
        model = self._model(name, request.model_version)
        if name in self.unloaded:
            raise NotFound(f"model '{name}' is not loaded.")
        variant, role, reason = model.choose(name, request.model_version)
        try:
            arrays = decode_tensors(request.inputs, request.raw_input_contents)
            model.check(arrays)
            outputs = _wanted(request, model.variants[variant](arrays))
        except (TensorError, ValueError) as error:
            raise InvalidRequest(str(error)) from error
        with self._lock:
            self.counts[name, variant] += 1
        response = pb.ModelInferResponse(model_name=name, model_version=variant, id=request.id)
        said = {responses.VARIANT: variant, responses.ROLE: role, responses.REASON: reason}
        for key, value in said.items():
            response.parameters[key].CopyFrom(parameter(value))
        encode_outputs(response, outputs)
        return response

    def _model(self, name: str, variant: str) -> FakeModel:
        model = self.models.get(name)
        if model is None:
            raise NotFound(f"there is no model '{name}'; there is {', '.join(self.models) or 'none'}.")
        model.choose(name, variant)
        return model


def _wanted(request: pb.ModelInferRequest, outputs: Mapping[str, Array]) -> dict[str, Array]:
    names = [output.name for output in request.outputs] or list(outputs)
    for name in names:
        if name not in outputs:
            raise InvalidRequest(f"there is no output '{name}'; there is {', '.join(outputs)}.")
    return {name: outputs[name] for name in names}


def _metadata(tensors: Iterable[TensorInfo]) -> Tensors:
    return [
        pb.ModelMetadataResponse.TensorMetadata(name=info.name, datatype=info.datatype, shape=info.shape)
        for info in tensors
    ]


# The RPCs that the fake has: the request's type, and what answers. The rest is UNIMPLEMENTED.
METHODS: Final[Mapping[str, tuple[Any, Callable[[Answers, Any], Any]]]] = {
    "ServerLive": (pb.ServerLiveRequest, Answers.server_live),
    "ServerReady": (pb.ServerReadyRequest, Answers.server_ready),
    "ServerMetadata": (pb.ServerMetadataRequest, Answers.server_metadata),
    "ModelReady": (pb.ModelReadyRequest, Answers.model_ready),
    "ModelMetadata": (pb.ModelMetadataRequest, Answers.model_metadata),
    "ModelConfig": (pb.ModelConfigRequest, Answers.model_config),
    "ModelInfer": (pb.ModelInferRequest, Answers.infer),
    "ModelStatistics": (pb.ModelStatisticsRequest, Answers.statistics),
    "RepositoryIndex": (pb.RepositoryIndexRequest, Answers.repository_index),
    "RepositoryModelLoad": (pb.RepositoryModelLoadRequest, Answers.load),
    "RepositoryModelUnload": (pb.RepositoryModelUnloadRequest, Answers.unload),
}
