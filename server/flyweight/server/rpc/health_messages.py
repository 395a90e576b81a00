"""The messages of grpc.health.v1, List among them, which the package for Python has not got yet.

Source: grpc/grpc-proto, grpc/health/v1/health.proto. The file lives in our own pool, for reflection.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2

from flyweight.protos.pool import POOL

_PACKAGE: Final = ".grpc.health.v1"
_Field = FieldDescriptorProto


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto.FromString(health_pb2.DESCRIPTOR.serialized_pb)
    # A later release of the package may have it.
    if "HealthListResponse" not in health_pb2.DESCRIPTOR.message_types_by_name:
        _add_list(file)
    return file


def _add_list(file: FileDescriptorProto) -> None:
    file.message_type.add(name="HealthListRequest")
    response = file.message_type.add(name="HealthListResponse")
    response.field.add(
        name="statuses",
        number=1,
        label=_Field.LABEL_REPEATED,
        type=_Field.TYPE_MESSAGE,
        type_name=f"{_PACKAGE}.HealthListResponse.StatusesEntry",
    )
    entry = response.nested_type.add(name="StatusesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL, type=_Field.TYPE_STRING)
    entry.field.add(
        name="value",
        number=2,
        label=_Field.LABEL_OPTIONAL,
        type=_Field.TYPE_MESSAGE,
        type_name=f"{_PACKAGE}.HealthCheckResponse",
    )
    file.service[0].method.add(
        name="List",
        input_type=f"{_PACKAGE}.HealthListRequest",
        output_type=f"{_PACKAGE}.HealthListResponse",
    )


POOL.AddSerializedFile(_file().SerializeToString())
HealthListResponse: Final[Any] = GetMessageClass(
    POOL.FindMessageTypeByName(f"{_PACKAGE[1:]}.HealthListResponse")
)
