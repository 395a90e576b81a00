"""Server reflection over our own descriptor pool, under both of its names: v1 and v1alpha.

The two differ in nothing but the package's name, so one servicer answers both.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import ReflectionServicer

from flyweight.protos.pool import POOL

_ALPHA: Final = "grpc.reflection.v1alpha"
_STABLE: Final = "grpc.reflection.v1"
_SERVICE: Final = "ServerReflection"
SERVICE_NAMES: Final = (f"{_STABLE}.{_SERVICE}", f"{_ALPHA}.{_SERVICE}")

# A reflection stream holds its thread for as long as the caller keeps it open, so these threads are few and
# serve nothing else.
_THREADS: Final = 2


class Reflection:
    """Tells clients without our .proto files what the server speaks. Owns its threads, until `stop`."""

    def __init__(self, service_names: tuple[str, ...]) -> None:
        _add_foreign_descriptors()
        self._pool = ThreadPoolExecutor(_THREADS, "reflection")
        names = (*service_names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, *SERVICE_NAMES)
        self._servicer = ReflectionServicer(names, POOL)

    def register(self, server: grpc.Server, _small_pool: ThreadPoolExecutor) -> None:
        """Add both services to a server."""
        behaviour = self._servicer.ServerReflectionInfo

        def reflect(requests: Iterable[object], context: grpc.ServicerContext) -> object:
            return behaviour(requests, context)

        reflect.experimental_thread_pool = self._pool  # type: ignore[attr-defined]
        handler = grpc.stream_stream_rpc_method_handler(
            reflect,
            reflection_pb2.ServerReflectionRequest.FromString,
            reflection_pb2.ServerReflectionResponse.SerializeToString,
        )
        for name in SERVICE_NAMES:
            generic = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            server.add_generic_rpc_handlers((generic,))

    def stop(self) -> None:
        """End the threads once their streams are over."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _add_foreign_descriptors() -> None:
    """Put the files of health and reflection, which live in the default pool, into ours as well."""
    POOL.AddSerializedFile(health_pb2.DESCRIPTOR.serialized_pb)
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
