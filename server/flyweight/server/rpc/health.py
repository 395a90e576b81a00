"""grpc.health.v1: the health of the server ("") and of each model by name, told truthfully throughout.

The service itself is grpcio-health-checking's; here are the names and states that it tells.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health import OVERALL_HEALTH, SERVICE_NAME, HealthServicer

from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import RoutingTable

_SERVING: Final = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final = health_pb2.HealthCheckResponse.NOT_SERVING


class Health(NullObserver):
    """Keeps the health service up to date. Thread-safe.

    A model is SERVING while one of its variants is ready, whatever other models do; the server is SERVING
    from `serve` to `stop`, whatever its models do.
    """

    def __init__(self) -> None:
        # Non-blocking: a Watch then holds no thread while nothing changes.
        self._servicer = HealthServicer(experimental_non_blocking=True)
        self._servicer.set(OVERALL_HEALTH, _NOT_SERVING)
        self._known: set[str] = set()

    def serve(self) -> None:
        """Say that the server takes requests."""
        self._servicer.set(OVERALL_HEALTH, _SERVING)

    def stop(self) -> None:
        """Say, for good, that neither the server nor any model takes new requests."""
        self._servicer.enter_graceful_shutdown()

    def on_table(self, table: RoutingTable) -> None:
        """Tell each model's health by the table that routes its requests."""
        self._known |= table.models.keys() | table.waiting
        for name in self._known:
            self._servicer.set(name, _SERVING if name in table.models else _NOT_SERVING)

    def register(self, server: grpc.Server, small_pool: ThreadPoolExecutor) -> None:
        """Add the service to a server, to be answered by `small_pool`'s threads."""

        def check(request: Any, context: grpc.ServicerContext) -> Any:
            return self._servicer.Check(request, context)

        def watch(request: Any, context: grpc.ServicerContext, send: Any) -> Any:
            return self._servicer.Watch(request, context, send)

        # Attributes of these functions and not of the library's class: two servers may live in one process.
        check.experimental_thread_pool = small_pool  # type: ignore[attr-defined]
        watch.experimental_thread_pool = small_pool  # type: ignore[attr-defined]
        watch.experimental_non_blocking = True  # type: ignore[attr-defined]
        request, response = health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
        handlers = {
            "Check": grpc.unary_unary_rpc_method_handler(
                check, request.FromString, response.SerializeToString
            ),
            "Watch": grpc.unary_stream_rpc_method_handler(
                watch, request.FromString, response.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
