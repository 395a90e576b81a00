"""gRPC's C core at its completion queue: calls come out of one queue, and answers go in, without threads.

grpcio's own server waits in a thread for each call and wakes it for each step of it, which costs more than
the call. Here one thread takes events from the queue and hands each to the function it was tagged with;
docs/decisions/0007-one-completion-queue.md has the measurements. The module `grpc._cython.cygrpc` is what
grpcio's servers are written on; it has no stubs, and this is the only file that knows it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from grpc._cython import cygrpc  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Body, Failure
from flyweight.server.rpc.core_tls import credentials_of
from flyweight.server.rpc.live_call import LiveCall
from flyweight.server.security.certificates import Pems
from flyweight.server.security.reloaded import Reloaded

_core: Any = cygrpc

# Takes what a batch of operations came to; whether it could be done.
_OnBatch: TypeAlias = Callable[[Any], None]

_NO_FLAGS: Final = 0
# A past moment: whatever is in the queue, or nothing.
_AT_ONCE: Final = 0.0
# gRPC's core tells a call without a deadline by one that is hundreds of years away.
_FOREVER_SECONDS: Final = 1e9
# Calls that the core may hand over before it is asked for more: as many as come between two events.
_REQUESTED_CALLS: Final = 16

_REQUEST: Final = object()
_SHUTDOWN: Final = object()


class _Due:
    """How many events are still to come out of the queue. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.count = 0

    def add(self, number: int) -> None:
        with self._lock:
            self.count += number


class CoreCall(LiveCall):
    """One call of the core."""

    __slots__ = ("_call", "_due", "_has_begun", "_is_half_closed")

    def __init__(self, event: Any, due: _Due) -> None:
        # At once, for it is told on the wall's clock: a jump of that after the event and before this line
        # would move the deadline by as much.
        left = event.call_details.deadline - time.time()
        deadline = time.monotonic() + left if left < _FOREVER_SECONDS else None
        super().__init__(
            event.call_details.method.decode(errors="replace"), event.invocation_metadata, deadline
        )
        self._call = event.call
        self._due = due
        self._is_half_closed = self._has_begun = False
        self._batch((_core.ReceiveCloseOnServerOperation(_NO_FLAGS),), self._close)

    def peer(self) -> str:
        """Return the address of the other end as gRPC writes it, "ipv4:127.0.0.1:1234"."""
        found: bytes | str = self._call.peer()
        return found.decode() if isinstance(found, bytes) else found

    def auth_context(self) -> dict[str, Sequence[bytes]]:
        """Return the properties of the connection's credentials, as `grpc.ServicerContext` does."""
        found = _core.auth_context(self._call)
        return {key.decode() if isinstance(key, bytes) else key: value for key, value in found.items()}

    def read(self, on_message: Callable[[Body | None], None]) -> None:
        """Have the next message given to `on_message`, or None when the caller sends no more."""

        def received(event: Any) -> None:
            message = event.batch_operations[0].message()
            if not event.success:
                # The core refused it and told the caller: it is too large, or, which is not told here, it
                # cannot be unpacked (INTERNAL).
                self.count_as(Code.RESOURCE_EXHAUSTED)
            elif message is None:
                self._is_half_closed = True
            on_message(message)

        self._batch((_core.ReceiveMessageOperation(_NO_FLAGS),), received)

    def answer(self, body: bytes) -> None:
        """End a call that has one answer."""
        if self._code is None:
            self._code = Code.OK
        self._batch(
            (
                _core.SendInitialMetadataOperation(None, _NO_FLAGS),
                _core.SendMessageOperation(body, _NO_FLAGS),
                _core.SendStatusFromServerOperation(None, 0, b"", _NO_FLAGS),
            ),
            _ignore,
        )

    def begin(self, on_begun: Callable[[bool], None]) -> None:
        """Send the headers of an answer of several messages; tell `on_begun` whether the call still is."""
        self._has_begun = True
        self._batch(
            (_core.SendInitialMetadataOperation(None, _NO_FLAGS),), lambda event: on_begun(event.success)
        )

    def send(self, body: bytes, on_sent: Callable[[bool], None]) -> None:
        """Send one of several messages; the next may be sent when `on_sent` is told."""
        self._batch((_core.SendMessageOperation(body, _NO_FLAGS),), lambda event: on_sent(event.success))

    def end(self, failure: Failure | None) -> None:
        """End a call with a status and no message, or no further one."""
        self.count_as(Code.OK if failure is None else failure.code)
        code, sentence, trailers = 0, b"", None
        if failure is not None:
            code, sentence = int(failure.code), failure.sentence.encode()
            trailers = failure.trailing_metadata or None
        operations = [_core.SendStatusFromServerOperation(trailers, code, sentence, _NO_FLAGS)]
        if not self._has_begun:
            operations.insert(0, _core.SendInitialMetadataOperation(None, _NO_FLAGS))
        self._batch(tuple(operations), _ignore)

    def _batch(self, operations: tuple[Any, ...], on_done: _OnBatch) -> None:
        # Before it begins: its event may be taken before this line is done.
        self._due.add(1)
        is_begun = False
        try:
            is_begun = not self._call.start_server_batch(operations, on_done)
        finally:
            if not is_begun:
                self._due.add(-1)
        if not is_begun:
            raise RuntimeError(f"gRPC's core refused an operation on {self.path}: it was asked for twice.")

    def _close(self, event: Any) -> None:
        # Comes once: after the status was sent, or when the caller cancelled, vanished or was too slow.
        if self._is_half_closed and event.batch_operations[0].cancelled():
            # There was no further message because the caller was gone: nobody heard what we made of that.
            self._code = None
        self._be_over()
        self._tell_over()


class CoreServer:
    """A server of gRPC's core and its one completion queue.

    Have it `listen`, `start` it, then call `take` again and again from one thread until it says that the
    server is shut down.
    """

    def __init__(self, options: Sequence[tuple[str, Any]], on_call: Callable[[CoreCall], None]) -> None:
        """Make a server.

        Args:
            options: the channel arguments.
            on_call: is given every call, on the thread that takes events.
        """
        self._queue = _core.CompletionQueue()
        self._server = _core.Server(tuple(options), False)  # noqa: FBT003 - its signature: no xDS
        self._server.register_completion_queue(self._queue)
        self._on_call = on_call
        self._due = _Due()
        self._is_stopping = False

    def listen(self, address: str, pems: Reloaded[Pems] | None) -> int:
        """Listen, with TLS if there are PEM files for it; return the port.

        Raises:
            RuntimeError: the address cannot be listened on.
        """
        if pems is None:
            port: int = self._server.add_http2_port(address.encode())
        else:
            credentials: Any = credentials_of(pems)
            port = self._server.add_http2_port(address.encode(), credentials._credentials)
        if port == 0:
            # The core's way to say that it failed.
            raise RuntimeError(f"{address} cannot be listened on")
        return port

    def start(self) -> None:
        """Accept connections; calls come out of `take`."""
        self._server.start()
        for _ in range(_REQUESTED_CALLS):
            self._request()

    def take(self, until_monotonic: float | None) -> bool | None:
        """Wait for one event, and handle it.

        Args:
            until_monotonic: how long to wait; None takes what is there already.

        Returns:
            True when there was an event, False when there was none, None when all is shut down.
        """
        moment = _AT_ONCE if until_monotonic is None else time.time() + until_monotonic - time.monotonic()
        event = self._queue.poll(moment)
        if event.completion_type == _core.CompletionType.queue_timeout:
            return False
        self._due.add(-1)
        if event.tag is _REQUEST:
            self._accept(event)
        elif event.tag is not _SHUTDOWN:
            event.tag(event)
        if self._is_stopping and not self._due.count:
            self._server.destroy()
            return None
        return True

    def drain(self, until_monotonic: float) -> None:
        """Do nothing: gRPC's core asks clients to go elsewhere when it is shut down."""

    def shut_down(self) -> None:
        """Close the port and cut every call; `take` goes on until all is over. For the thread that takes."""
        self._is_stopping = True
        self._due.add(1)
        self._server.shutdown(self._queue, _SHUTDOWN)
        self._server.cancel_all_calls()

    def _request(self) -> None:
        self._due.add(1)
        self._server.request_call(self._queue, self._queue, _REQUEST)

    def _accept(self, event: Any) -> None:
        # Without success when the server is shutting down: it gives back what it was asked for.
        if not event.success or event.call is None:
            return
        if not self._is_stopping:
            self._request()
        self._on_call(CoreCall(event, self._due))


def _ignore(_event: Any) -> None:
    """Note nothing: whether an answer arrived is told by the end of the call."""
