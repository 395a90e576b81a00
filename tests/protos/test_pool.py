"""Everything we generate is in our own descriptor pool, and nothing of it in protobuf's."""

import importlib
from types import ModuleType

import pytest
from google.protobuf import descriptor_pool

from flyweight.protos.pool import POOL

GENERATED = [
    "flyweight.protos.control.v1.control_pb2",
    "flyweight.protos.inference.grpc_service_pb2",
    "flyweight.protos.inference.model_config_pb2",
    "flyweight.protos.manifest.v1.manifest_pb2",
]


@pytest.fixture(params=GENERATED)
def generated(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def test_a_generated_file_is_in_our_pool_only(generated: ModuleType) -> None:
    name = generated.DESCRIPTOR.name
    assert POOL.FindFileByName(name) is generated.DESCRIPTOR
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName(name)


def test_protobufs_own_pool_cannot_hold_the_public_protocol_twice() -> None:
    """The reason for a pool of our own, and the day this fails it is not needed any more."""
    from tritonclient.grpc import model_config_pb2 as theirs

    from flyweight.protos.inference import model_config_pb2

    assert theirs.DESCRIPTOR.pool is descriptor_pool.Default()
    with pytest.raises(TypeError, match=r"duplicate symbol 'inference\."):
        descriptor_pool.Default().AddSerializedFile(model_config_pb2.DESCRIPTOR.serialized_pb)


def test_a_contract_imports_only_our_own_files(generated: ModuleType) -> None:
    """Our pool has no google.protobuf.Timestamp and its like: a file that imports them would not load."""
    assert all(file.name.startswith("flyweight/protos/") for file in generated.DESCRIPTOR.dependencies)


def test_the_service_names_on_the_wire() -> None:
    from flyweight.protos.control.v1 import control_pb2
    from flyweight.protos.inference import grpc_service_pb2

    inference = grpc_service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    control = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
    assert inference.full_name == "inference.GRPCInferenceService"
    assert control.full_name == "flyweight.control.v1.ControlService"
    assert [method.name for method in control.methods] == [
        "ListVariants",
        "GetTraffic",
        "SetTraffic",
        "GetRollout",
        "StartRollout",
        "AbortRollout",
        "Promote",
        "Rollback",
        "GetComparison",
        "ReportOutcomes",
    ]
