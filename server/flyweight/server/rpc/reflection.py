"""Server reflection over our own descriptor pool, under both of its names: v1 and v1alpha.

The two differ in nothing but the package's name, so one servicer answers both.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from flyweight.protos.pool import POOL
from flyweight.server.rpc.border import attempt
from flyweight.server.rpc.call import Body, Call, Failure, Stream
from flyweight.server.rpc.health_messages import HealthListResponse
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.method import Method, Streaming

_ALPHA: Final = "grpc.reflection.v1alpha"
_STABLE: Final = "grpc.reflection.v1"
_SERVICE: Final = "ServerReflection"
SERVICE_NAMES: Final = (f"{_STABLE}.{_SERVICE}", f"{_ALPHA}.{_SERVICE}")


class Reflection:
    """Tells clients without our .proto files what the server speaks."""

    def __init__(self, service_names: tuple[str, ...]) -> None:
        _add_foreign_descriptors()
        health = HealthListResponse.DESCRIPTOR.file.services_by_name["Health"].full_name
        self._names = (*service_names, health, *SERVICE_NAMES)
        # Its stubs say that it returns nothing; it is a generator over a stream that asks no context.
        self._servicer: Any = None

    @property
    def methods(self) -> tuple[Method, ...]:
        """Return the RPC under both of its names."""
        return tuple(Streaming(f"/{name}/ServerReflectionInfo", self.reflect) for name in SERVICE_NAMES)

    def reflect(self, _call: Call, stream: Stream) -> "_Questions":
        """Answer every question on a stream as it comes."""
        if self._servicer is None:
            # Not at the top: it loads gRPC, a tenth of a second and 9 MB; most servers are never asked.
            from grpc_reflection.v1alpha.reflection import ReflectionServicer

            self._servicer = ReflectionServicer(self._names, POOL)
        return _Questions(self._servicer, stream)


class _Questions:
    """One stream of questions, each answered before the next is read."""

    def __init__(self, servicer: Any, stream: Stream) -> None:
        self._servicer = servicer
        self._stream = stream

    def on_message(self, body: Body) -> None:
        """Answer a question."""
        result = attempt(lambda: self._answer(bytes(body)))
        if isinstance(result, Failure):
            self._stream.finish(result)
            return
        self._stream.send(result)
        self._stream.read()

    def on_half_close(self) -> None:
        """End the stream: everything was answered."""
        self._stream.finish()

    def _answer(self, body: bytes) -> bytes:
        question = parse(reflection_pb2.ServerReflectionRequest, body)
        # A stream of one question has one answer.
        body_of: bytes = next(self._servicer.ServerReflectionInfo(iter([question]), None)).SerializeToString()
        return body_of


def _add_foreign_descriptors() -> None:
    """Put the file of reflection, which lives in the default pool, into ours under both of its names."""
    alpha = reflection_pb2.DESCRIPTOR.serialized_pb
    POOL.AddSerializedFile(alpha)
    stable = FileDescriptorProto.FromString(alpha)
    stable.name = "grpc/reflection/v1/reflection.proto"
    stable.package = _STABLE
    for message in stable.message_type:
        # Assigning an empty name would declare a number to be a message.
        for member in filter(lambda field: field.type_name, message.field):
            member.type_name = member.type_name.replace(f".{_ALPHA}.", f".{_STABLE}.")
    for service in stable.service:
        for method in service.method:
            method.input_type = method.input_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
            method.output_type = method.output_type.replace(f".{_ALPHA}.", f".{_STABLE}.")
    POOL.AddSerializedFile(stable.SerializeToString())
