"""grpc.health.v1: the health of the server (""), its services and each model, told truthfully throughout.

The protocol is gRPC's health checking (grpc/grpc, doc/health-checking.md; health.proto).
"""

import threading
from collections.abc import Callable, Iterable
from typing import Final

from grpc_health.v1 import health_pb2

from flyweight.server.errors import Code, QueueFull, UnknownModel
from flyweight.server.lifecycle.observer import NullObserver
from flyweight.server.lifecycle.table import RoutingTable
from flyweight.server.rpc.call import Body, Call, Failure, Stream
from flyweight.server.rpc.health_messages import HealthListResponse
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.method import Method, Streaming, Unary

_SERVING: Final[int] = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING: Final[int] = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN: Final[int] = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_OVERALL: Final = ""

_SERVICE: Final = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

# Callers that watch at one time; each costs a few hundred bytes, and one balancer watches once.
_MOST_WATCHES: Final = 1000
_RETRY_SECONDS: Final = 1.0


class Health(NullObserver):
    """Keeps what it tells up to date. Thread-safe.

    A model is SERVING while one of its variants is ready, whatever other models do; the server is SERVING
    from `serve` to `stop`, whatever its models do.
    """

    def __init__(self, service_names: Iterable[str] = ()) -> None:
        """Args: `service_names` are asked about by balancers that watch a service and not the server."""
        self._overall = frozenset({_OVERALL, *service_names})
        self._lock = threading.Lock()
        self._states = dict.fromkeys(sorted(self._overall), _NOT_SERVING)
        self._watches: set[_Watch] = set()
        self._is_stopped = False

    @property
    def methods(self) -> tuple[Method, ...]:
        """Return the RPCs of the service."""
        return (
            Unary(f"/{_SERVICE}/Check", self.check),
            Unary(f"/{_SERVICE}/List", self.list),
            Streaming(f"/{_SERVICE}/Watch", self.watch),
        )

    def serve(self) -> None:
        """Say that the server takes requests."""
        self._tell(dict.fromkeys(self._overall, _SERVING))

    def stop(self) -> None:
        """Say, for good, that neither the server nor any model takes new requests."""
        with self._lock:
            names = list(self._states)
        self._tell(dict.fromkeys(names, _NOT_SERVING))
        with self._lock:
            self._is_stopped = True

    def on_table(self, table: RoutingTable) -> None:
        """Tell each model's health by the table that routes its requests."""
        with self._lock:
            known = (self._states.keys() | table.models.keys() | table.waiting) - self._overall
        self._tell({name: _SERVING if name in table.models else _NOT_SERVING for name in known})

    def check(self, body: bytes, _call: Call) -> bytes:
        """Tell the health of the server or of a model.

        Raises:
            UnknownModel: there is and was no such model.
        """
        name = parse(health_pb2.HealthCheckRequest, body).service
        with self._lock:
            state = self._states.get(name)
        if state is None:
            raise UnknownModel(
                f"There is no model {name!r} whose health could be told; leave it empty for all."
            )
        return _message(state)

    def list(self, _body: bytes, _call: Call) -> bytes:
        """Tell the health of the server and of every model."""
        with self._lock:
            states = dict(self._states)
        response = HealthListResponse()
        for name, state in states.items():
            response.statuses[name].status = state
        body: bytes = response.SerializeToString()
        return body

    def watch(self, call: Call, stream: Stream) -> "_Watch":
        """Tell the health now and whenever it changes.

        Raises:
            QueueFull: too many watch already.
        """
        watch = _Watch(stream, self._begin)
        with self._lock:
            if len(self._watches) >= _MOST_WATCHES:
                raise QueueFull(f"{_MOST_WATCHES} callers watch already; try again later.", _RETRY_SECONDS)
            self._watches.add(watch)
        call.on_end(lambda: self._forget(watch))
        return watch

    def _begin(self, watch: "_Watch") -> None:
        with self._lock:
            watch.tell(self._states.get(watch.name or _OVERALL, _SERVICE_UNKNOWN))

    def _forget(self, watch: "_Watch") -> None:
        with self._lock:
            self._watches.discard(watch)

    def _tell(self, states: dict[str, int]) -> None:
        with self._lock:
            if self._is_stopped:
                return
            changed = {name: state for name, state in states.items() if self._states.get(name) != state}
            self._states.update(changed)
            for watch in self._watches:
                if watch.name in changed:
                    watch.tell(changed[watch.name])


class _Watch:
    """One caller's watch over one name, which is None until it said which."""

    def __init__(self, stream: Stream, begin: Callable[["_Watch"], None]) -> None:
        self._stream = stream
        self._begin = begin
        self.name: str | None = None

    def on_message(self, body: Body) -> None:
        """Learn what is watched, and tell it for the first time."""
        self.name = parse(health_pb2.HealthCheckRequest, body).service
        self._begin(self)

    def on_half_close(self) -> None:
        """End a watch of nothing: this comes only where the caller's one message did not."""
        self._stream.finish(Failure(Code.UNIMPLEMENTED, f"/{_SERVICE}/Watch takes exactly one message."))

    def tell(self, state: int) -> None:
        """Send a state."""
        self._stream.send(_message(state))


def _message(state: int) -> bytes:
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(state)
    body: bytes = health_pb2.HealthCheckResponse(status=status).SerializeToString()
    return body
