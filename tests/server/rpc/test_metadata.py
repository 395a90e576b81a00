from types import MappingProxyType, SimpleNamespace
from typing import Any

from flyweight.protos.inference.grpc_service_pb2 import (
    ModelMetadataRequest,
    ModelMetadataResponse,
    ServerMetadataResponse,
)
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.metadata import Metadata
from flyweight.server.runtime.fake import FAKE_SIGNATURE


def metadata_of(platform: str, *variants: str) -> ModelMetadataResponse:
    loaded = SimpleNamespace(signature=FAKE_SIGNATURE, config=ModelConfig(platform=platform))
    model = SimpleNamespace(
        name="m", variants=MappingProxyType(dict.fromkeys(variants, loaded)), variant=lambda _name: loaded
    )
    models: Any = SimpleNamespace(table=SimpleNamespace(model=lambda _name: model))
    body = ModelMetadataRequest(name="m").SerializeToString()
    return ModelMetadataResponse.FromString(Metadata(models).model_metadata(body, Call()))


def test_versions_are_in_order_as_numbers_and_before_names() -> None:
    found = metadata_of("onnxruntime_onnx", "10", "2", "int8", "1", "baseline")
    assert list(found.versions) == ["1", "2", "10", "baseline", "int8"]


def test_the_platform_is_the_models_own() -> None:
    assert metadata_of("ensemble", "1").platform == "ensemble"
    assert metadata_of("", "1").platform == "onnxruntime_onnx"


def test_the_server_tells_what_was_set_up_among_what_is_always_there() -> None:
    models: Any = None
    metadata = Metadata(models, ["system_shared_memory"])
    found = ServerMetadataResponse.FromString(metadata.server_metadata(b"", Call()))
    assert {"system_shared_memory", "classification", "trace"} <= set(found.extensions)
    assert list(found.extensions) == sorted(found.extensions)
    without = ServerMetadataResponse.FromString(Metadata(models).server_metadata(b"", Call()))
    assert "system_shared_memory" not in without.extensions
