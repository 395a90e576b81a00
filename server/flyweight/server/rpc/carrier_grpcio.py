"""The grpcio carrier: brings the bytes of gRPC calls to the handlers and their answers back.

Threads under a synchronous grpcio server; docs/decisions/0003-threads-under-grpcio.md has the measurements.
"""

import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, NoReturn, Protocol, TypeAlias

import grpc

from flyweight.server.errors import Code, StartError
from flyweight.server.rpc.border import answer
from flyweight.server.rpc.call import Call, Failure, Handler
from flyweight.server.rpc.methods import Method
from flyweight.server.rpc.open_calls import OpenCalls
from flyweight.server.settings import ServerSettings, TlsFiles, read_pem

# grpcio tells a call without a deadline by one that is hundreds of years away, more than clocks can wait for.
_FOREVER_SECONDS: Final = 1e9
# Threads that answer health, metadata and the other small calls, which no inference ever occupies.
_SMALL_CALL_THREADS: Final = 4
# Threads beyond those that accepted requests hold, so that a request too many is refused at once.
_REFUSING_THREADS: Final = 8

# How long the last requests are given to come out of grpcio's queue before the connections are cut.
_GATHER_SECONDS: Final = 0.05

# Generic to the type checkers' stubs, and not at run time.
_GrpcHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_STATUS: Final = {status.value[0]: status for status in grpc.StatusCode}


class Registrar(Protocol):
    """Adds a service whose library is made for grpcio, as health and reflection are."""

    def __call__(self, server: grpc.Server, small_pool: ThreadPoolExecutor, /) -> None:
        """Add the service to `server`; `small_pool` has threads that inference never occupies."""
        ...


class GrpcioCarrier:
    """A grpcio server over our handlers. Owns its thread pools, from `start` to `stop`."""

    def __init__(
        self, settings: ServerSettings, methods: Sequence[Method], registrars: Sequence[Registrar]
    ) -> None:
        self._settings = settings
        self._open_calls = OpenCalls()
        self._pool = ThreadPoolExecutor(settings.max_in_flight + _REFUSING_THREADS, "rpc")
        self._small_pool = ThreadPoolExecutor(_SMALL_CALL_THREADS, "rpc-small")
        self._server = grpc.server(self._pool, options=_options(settings))
        for service, handlers in self._by_service(methods).items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        for register in registrars:
            register(self._server, self._small_pool)

    def _by_service(self, methods: Sequence[Method]) -> dict[str, dict[str, _GrpcHandler]]:
        services: dict[str, dict[str, _GrpcHandler]] = {}
        for method in methods:
            _, service, name = method.path.split("/")
            services.setdefault(service, {})[name] = self._grpc_handler(method)
        return services

    def _grpc_handler(self, method: Method) -> _GrpcHandler:
        """Wrap a handler; no serializers are given, so bytes come and go as they are."""
        if method.client_streaming or method.server_streaming:
            return _streaming_handler(method)
        behaviour = _unary_behaviour(method.handler, self._open_calls)
        if method.is_small:
            # grpcio runs a behaviour in the pool it names here; without it, in the server's own.
            behaviour.experimental_thread_pool = self._small_pool  # type: ignore[attr-defined]
        return grpc.unary_unary_rpc_method_handler(behaviour)

    def bind(self) -> int:
        """Take the port, without answering on it yet, and return its number.

        Raises:
            StartError: the address cannot be listened on, or a TLS file cannot be used.
        """
        host, port = self._settings.host, self._settings.port
        # Asked of the kernel first: it says why, where grpcio only says that it failed, in a log of its own.
        _probe(host, port)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return self._bind(address)
        except RuntimeError as error:
            # The address was free a moment ago, so with TLS it is the files that grpcio does not take.
            if self._settings.tls is not None:
                raise StartError(_unusable(self._settings.tls)) from error
            raise StartError(f"{address} cannot be listened on; choose another --host or --port.") from error

    def start(self) -> None:
        """Answer calls from now on."""
        self._server.start()

    def _bind(self, address: str) -> int:
        tls = self._settings.tls
        if tls is None:
            return self._server.add_insecure_port(address)
        authority = tls.client_authority
        credentials = grpc.ssl_server_credentials(
            [(read_pem(tls.key, "TLS key"), read_pem(tls.certificate, "TLS certificate"))],
            root_certificates=read_pem(authority, "TLS client authority") if authority else None,
            require_client_auth=authority is not None,
        )
        return self._server.add_secure_port(address, credentials)

    def stop(self, grace_seconds: float) -> None:
        """Give the calls in progress up to `grace_seconds`, cut all connections, and end the threads.

        Not grpcio's own grace: what arrives during it, or lies in grpcio's queue as it begins, ends as
        CANCELLED, which no client sends again. A call in a handler ends as UNAVAILABLE when its connection is
        cut; so the last ones are all brought into handlers first, and held there.
        """
        self._open_calls.wait_for_present(grace_seconds)
        self._open_calls.hold()
        try:
            time.sleep(min(_GATHER_SECONDS, grace_seconds))
            self._server.stop(None).wait()
        finally:
            self._open_calls.let_go()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._small_pool.shutdown(wait=False, cancel_futures=True)


def _unusable(tls: TlsFiles) -> str:
    authority = f", or the authority {tls.client_authority}" if tls.client_authority else ""
    return (
        f"The TLS certificate {tls.certificate} and the key {tls.key}{authority} cannot be used; give files "
        "in PEM form, the key being the certificate's."
    )


def _probe(host: str, port: int) -> None:
    """Listen on an address for a moment.

    Raises:
        StartError: it cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # As servers do: a connection that just ended does not make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen()
        # A host that cannot be a name at all is a UnicodeError to Python's look-up.
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise StartError(
                f"{host}:{port} cannot be listened on ({reason}); choose another with --host or "
                "--port, or --port 0 for any free port."
            ) from error


def _options(settings: ServerSettings) -> list[tuple[str, int]]:
    return [
        # Without this a second server silently shares the port and takes half of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        # A response is as large as the model makes it; refusing it after the work is done helps nobody.
        ("grpc.max_send_message_length", -1),
    ]


def _unary_behaviour(
    handler: Handler, open_calls: OpenCalls
) -> Callable[[bytes, grpc.ServicerContext], bytes]:
    def behaviour(body: bytes, context: grpc.ServicerContext) -> bytes:
        open_calls.enter(context.add_callback)
        result = answer(handler, body, _call_of(context))
        if isinstance(result, Failure):
            _abort(context, result)
        return result

    return behaviour


def _streaming_handler(method: Method) -> _GrpcHandler:
    """Return the handler of a streaming RPC; none is implemented, so it fails before it reads anything."""

    def behaviour(_: object, context: grpc.ServicerContext) -> NoReturn:
        result = answer(method.handler, b"", _call_of(context))
        _abort(context, result if isinstance(result, Failure) else Failure(Code.UNIMPLEMENTED, method.path))

    if method.client_streaming and method.server_streaming:
        return grpc.stream_stream_rpc_method_handler(behaviour)
    if method.client_streaming:
        return grpc.stream_unary_rpc_method_handler(behaviour)
    return grpc.unary_stream_rpc_method_handler(behaviour)


def _call_of(context: grpc.ServicerContext) -> Call:
    remaining_seconds = context.time_remaining()
    has_deadline = remaining_seconds is not None and remaining_seconds < _FOREVER_SECONDS
    return Call(
        deadline_monotonic=time.monotonic() + remaining_seconds if has_deadline else None,
        metadata=context.invocation_metadata(),
        is_active=context.is_active,
        on_end=context.add_callback,
    )


def _abort(context: grpc.ServicerContext, failure: Failure) -> NoReturn:
    if failure.trailing_metadata:
        context.set_trailing_metadata(failure.trailing_metadata)
    context.abort(_STATUS[failure.code], failure.sentence)
