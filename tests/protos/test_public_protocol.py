"""Our `inference` package is the public one: field for field, value for value, call for call.

The reference is what tritonclient carries. The comparison runs in processes of its own, with either package
imported first, because both define `inference` and only separate descriptor pools let them live together.
"""

import json
import subprocess
import sys
from typing import Any

import pytest

DESCRIBE = """
import json, sys
from google.protobuf.descriptor_pb2 import FileDescriptorProto

def ours():
    from flyweight.protos.inference import grpc_service_pb2, model_config_pb2
    return grpc_service_pb2, model_config_pb2

def theirs():
    from tritonclient.grpc import model_config_pb2, service_pb2
    return service_pb2, model_config_pb2

def describe(modules):
    facts = {}
    for module in modules:
        file = FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        scope = file.package
        facts[scope] = file.syntax
        for enum in file.enum_type:
            describe_enum(facts, scope, enum)
        for message in file.message_type:
            describe_message(facts, scope, message)
        for service in file.service:
            for rpc in service.method:
                facts[f"{scope}.{service.name}/{rpc.name}"] = [
                    rpc.input_type, rpc.output_type, rpc.client_streaming, rpc.server_streaming]
    return facts

def describe_enum(facts, scope, enum):
    facts[f"{scope}.{enum.name}"] = {value.name: value.number for value in enum.value}

def describe_message(facts, scope, message):
    scope = f"{scope}.{message.name}"
    facts[scope] = {
        "map": message.options.map_entry,
        "oneofs": [oneof.name for oneof in message.oneof_decl],
        "fields": {field.name: describe_field(message, field) for field in message.field},
        "reserved": [[span.start, span.end] for span in message.reserved_range],
    }
    for enum in message.enum_type:
        describe_enum(facts, scope, enum)
    for nested in message.nested_type:
        describe_message(facts, scope, nested)

def describe_field(message, field):
    oneof = message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else None
    kind = [field.number, field.type, field.label, field.type_name, field.proto3_optional]
    return [*kind, oneof, field.json_name]

sides = {"ours": ours, "theirs": theirs}
modules = {name: sides[name]() for name in sys.argv[1:]}
print(json.dumps({name: describe(pair) for name, pair in modules.items()}))
"""


@pytest.fixture(scope="module", params=["ours theirs", "theirs ours"])
def descriptions(request: pytest.FixtureRequest) -> dict[str, dict[str, Any]]:
    """Both packages described by one process that imports them in the order of the parameter."""
    command = [sys.executable, "-W", "error", "-c", DESCRIBE, *request.param.split()]
    outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert outcome.returncode == 0, outcome.stderr
    described: dict[str, dict[str, Any]] = json.loads(outcome.stdout)
    return described


def test_messages_enums_and_calls_are_the_public_ones(descriptions: dict[str, dict[str, Any]]) -> None:
    ours, theirs = descriptions["ours"], descriptions["theirs"]
    assert sorted(ours) == sorted(theirs)
    for name, facts in theirs.items():
        assert ours[name] == facts, name


def test_the_comparison_saw_everything(descriptions: dict[str, dict[str, Any]]) -> None:
    theirs = descriptions["theirs"]
    calls = [name for name in theirs if name.startswith("inference.GRPCInferenceService/")]
    assert len(calls) == 20
    assert theirs["inference.ModelInferRequest"]["fields"]["raw_input_contents"][0] == 7
    assert theirs["inference.DataType"]["TYPE_BF16"] == 14
    assert len(theirs) > 140


def test_calls_can_be_made_with_the_generated_stub() -> None:
    from flyweight.protos.inference import grpc_service_pb2_grpc as ours

    names = {name for name in vars(ours.GRPCInferenceServiceServicer) if not name.startswith("_")}
    assert {"ModelInfer", "ModelStreamInfer", "LogSettings"} <= names
    assert len(names) == 20
