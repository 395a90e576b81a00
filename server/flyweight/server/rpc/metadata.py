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

# The extensions of the Open Inference Protocol that this server has, by Triton's names.
EXTENSIONS: Final = (
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)

# Triton's name for an ONNX model run by onnxruntime.
_PLATFORM: Final = "onnxruntime_onnx"


class Metadata:
    """Answers what clients ask before they send tensors."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._server = ServerMetadataResponse(
            name=SERVER_NAME, version=version("flyweight"), extensions=EXTENSIONS
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
        signature = model.variant(request.version).signature
        return ModelMetadataResponse(
            name=model.name,
            versions=sorted(model.variants),
            platform=_PLATFORM,
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


def _described(specs: Iterable[TensorSpec]) -> list[ModelMetadataResponse.TensorMetadata]:
    return [
        ModelMetadataResponse.TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape)
        for spec in specs
    ]
