"""ServerMetadata, ModelMetadata and ModelConfig: what is served, and what it takes."""

from collections.abc import Iterable
from importlib.metadata import version
from typing import Final

from flyweight.protos.inference.grpc_service_pb2 import (
    ModelConfigRequest,
    ModelConfigResponse,
    ModelMetadataRequest,
    ModelMetadataResponse,
    ServerMetadataResponse,
)
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.models import Models
from flyweight.server.runtime.seam import TensorSpec

SERVER_NAME: Final = "flyweight"

# The extensions of the Open Inference Protocol whose RPCs this server always answers, by Triton's names.
EXTENSIONS: Final = (
    "binary_tensor_data",
    "classification",
    "logging",
    "model_configuration",
    "model_repository",
    "model_repository(unload_dependents)",
    "parameters",
    "schedule_policy",
    "sequence",
    "sequence(string_id)",
    "statistics",
    "trace",
)

# Triton's name for an ONNX model run by onnxruntime.
_PLATFORM: Final = "onnxruntime_onnx"


class Metadata:
    """Answers what clients ask before they send tensors."""

    def __init__(self, models: Models, extensions: Iterable[str] = ()) -> None:
        """Make the handlers; `extensions` are those that are there besides `EXTENSIONS`."""
        self._models = models
        self._server = ServerMetadataResponse(
            name=SERVER_NAME, version=version("flyweight"), extensions=sorted({*EXTENSIONS, *extensions})
        ).SerializeToString()

    def server_metadata(self, _body: bytes, _call: Call) -> bytes:
        """Tell the server's name, version and extensions."""
        return self._server

    def model_metadata(self, body: bytes, _call: Call) -> bytes:
        """Tell a model's ready variants, and the inputs and outputs of the one asked for or the baseline.

        Raises:
            UnknownModel, NotReady, UnknownVariant: there is nothing to tell.
        """
        request = parse(ModelMetadataRequest, body)
        model = self._models.table.model(request.name)
        variant = model.variant(request.version)
        signature = variant.signature
        return ModelMetadataResponse(
            name=model.name,
            versions=sorted(model.variants, key=_version_order),
            platform=variant.config.platform or _PLATFORM,
            inputs=_described(signature.inputs),
            outputs=_described(signature.outputs),
        ).SerializeToString()

    def model_config(self, body: bytes, _call: Call) -> bytes:
        """Tell the configuration of the variant asked for, or of the baseline.

        Raises:
            UnknownModel, NotReady, UnknownVariant: there is nothing to tell.
        """
        request = parse(ModelConfigRequest, body)
        variant = self._models.table.model(request.name).variant(request.version)
        return ModelConfigResponse(config=variant.config).SerializeToString()


def _version_order(name: str) -> tuple[bool, int, str]:
    """Order numbers as numbers, and before words."""
    is_number = name.isascii() and name.isdecimal()
    return not is_number, int(name) if is_number else 0, name


def _described(specs: Iterable[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for spec in specs
    ]
