"""The carrier: brings the bytes of gRPC calls to the handlers and their answers back.

One thread takes whatever a transport has brought (`rpc.transports`), lets the scheduler begin its runs, and
looks again. docs/decisions/0007-one-completion-queue.md has the measurements.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Protocol

from flyweight.server.errors import Code, QueueFull
from flyweight.server.rpc.access_log import AccessLog
from flyweight.server.rpc.arriving import Arriving
from flyweight.server.rpc.border import answer, attempt, failure_of
from flyweight.server.rpc.call import Body, Call, Failure, Reply, Wording, as_it_is
from flyweight.server.rpc.call_counts import CallCounts
from flyweight.server.rpc.call_stream import CallStream
from flyweight.server.rpc.listening import bind
from flyweight.server.rpc.live_call import LiveCall
from flyweight.server.rpc.messages import sendable
from flyweight.server.rpc.method import Deferred, Method, Streaming, Unary
from flyweight.server.rpc.peers import peer_of
from flyweight.server.rpc.slow import SLOW_CALL_THREADS
from flyweight.server.rpc.stream_places import StreamPlaces
from flyweight.server.rpc.transports import make_server
from flyweight.server.security.callers import ANYBODY, Caller
from flyweight.server.settings import ServerSettings
from flyweight.server.survival import survive

# Events that are taken before runs are begun, and for how long at most: a caller too many, or one who sends
# much, makes nobody wait longer.
_GATHERED_EVENTS: Final = 256
_LONGEST_GATHER_SECONDS: Final = 0.002
# How often a thread with nothing to do looks whether it is to stop.
_LOOK_SECONDS: Final = 0.2
# How long the last requests are given to come out of the transport before the connections are cut.
_GATHER_SECONDS: Final = 0.05
# How long a thread that is told to stop may take: the longest run that it does by itself, many times over.
_JOIN_SECONDS: Final = 5.0
# A thread that has not looked up for so long is stuck: the largest message is read in a second or two.
_STUCK_SECONDS: Final = 10.0


_NO_LOG: Final = AccessLog(is_on=False)

_TOO_SLOW: Final = (
    "The request was still on its way when as many others were (--max-in-flight) and one more came; try "
    "again later."
)


class Runs(Protocol):
    """What waits for a run."""

    def has_work(self) -> bool:
        """Tell whether anything waits; quick."""
        ...

    def is_running(self) -> bool:
        """Tell whether a run goes on in another thread; quick."""
        ...

    def advance(self) -> float | None:
        """Begin whatever may begin; return the moment at which to ask again, or None."""
        ...


class Guard(Protocol):
    """Lets a call pass, or refuses it."""

    def __call__(self, path: str, call: Call, /) -> Caller:
        """Return who calls the RPC "/package.Service/Method".

        Raises:
            FlyweightError: the call is refused.
        """
        ...


def _let_pass(_path: str, _call: Call) -> Caller:
    """Stand in where callers are not asked who they are."""
    return ANYBODY


class Carrier:
    """A server of gRPC over our handlers. Owns its threads, from `start` to `stop`.

    Args:
        settings: of the server.
        methods: every RPC that is answered.
        runs: what the handlers have submitted; a Scheduler.
        guard: is asked about every call first.
        wording: of the failures that callers are told.
        access_log: is told of every call that ended.
    """

    def __init__(
        self,
        settings: ServerSettings,
        methods: Sequence[Method],
        runs: Runs,
        guard: Guard = _let_pass,
        wording: Wording = as_it_is,
        access_log: AccessLog = _NO_LOG,
    ) -> None:
        self._settings = settings
        self._methods: Mapping[str, Method] = {method.path: method for method in methods}
        self.counts = CallCounts(self._methods)
        self._arriving: Arriving[LiveCall] = Arriving(settings.max_in_flight)
        self._places = StreamPlaces(settings.connections.max_streams)
        self._runs = runs
        self._guard = guard
        self._wording = wording
        self._access_log = access_log
        self._server = make_server(settings, self._accept, runs.is_running)
        self._thread = threading.Thread(target=self._serve, name="rpc", daemon=True)
        self._slow_pool = ThreadPoolExecutor(SLOW_CALL_THREADS, "rpc-slow")
        self._is_bound = self._is_holding = self._is_cutting = self._is_cut = False
        # Whether somebody waits for calls to end: a lock for each that nobody waits for is for nothing.
        self._is_awaited = False
        self._looked_seconds = 0.0
        self._rest: Callable[[], None] | None = None
        self._changed = threading.Condition()
        self._open: set[LiveCall] = set()

    def bind(self) -> int:
        """Take the port, without answering on it yet, and return its number.

        Raises:
            StartError: the address cannot be listened on, or a TLS file cannot be used.
        """
        port = bind(self._server, self._settings)
        self._is_bound = True
        return port

    def while_idle(self, rest: Callable[[], None]) -> None:
        """Have a quick function called now and then while nothing happens; to be said before `start`."""
        self._rest = rest

    def is_live(self) -> bool:
        """Tell whether calls are answered: the thread that takes them is not stuck, or not started yet."""
        is_started = self._thread.ident is not None
        return not is_started or time.monotonic() - self._looked_seconds < _STUCK_SECONDS

    def start(self) -> None:
        """Answer calls from now on."""
        self._looked_seconds = time.monotonic()
        self._server.start()
        self._thread.start()

    def stop(self, grace_seconds: float) -> None:
        """Give the calls in progress up to `grace_seconds`, cut all connections, and end the threads.

        Over the wire clients are first asked to go elsewhere, and nothing arrives when they heard of it. What
        arrives meanwhile is answered too, until the present calls are over; then newcomers are held. A call
        that is held is refused, or ends as UNAVAILABLE when its connection is cut, and is sent again
        elsewhere; one that the core finds in its queue as it shuts down would end as CANCELLED, which no
        client sends again.
        """
        if self._thread.ident is not None:
            ends_at = time.monotonic() + grace_seconds
            self._server.drain(ends_at)
            self._wait_for_present(ends_at)
            self._is_holding = True
            # Those that came in between.
            self._wait_for_present(ends_at)
            time.sleep(min(_GATHER_SECONDS, grace_seconds))
        elif self._is_bound:
            # Only a server that runs can give its port back.
            self._is_holding = True
            self.start()
        self._is_cutting = True
        if self._thread.ident is not None:
            self._thread.join(_JOIN_SECONDS)
        self._slow_pool.shutdown(wait=False, cancel_futures=True)

    def _wait_for_present(self, until_monotonic: float) -> None:
        """Wait until the calls of this moment are over, whatever comes after them."""
        with self._changed:
            self._is_awaited = True
            # A copy of a set is made whole, whatever the thread that takes calls adds meanwhile.
            present = self._open.copy()
            left_seconds = max(0.0, until_monotonic - time.monotonic())
            self._changed.wait_for(lambda: present.isdisjoint(self._open), left_seconds)

    def _serve(self) -> None:
        # A bug in one turn ends that turn only: what it was at is lost, and the others go on.
        while not survive("answering calls", self._take_turns, lambda _: False):
            pass

    def _take_turns(self) -> bool:
        """Take events and begin runs until all is shut down, which is True."""
        server, gathered = self._server, 0
        began = look_at = time.monotonic()
        while True:
            # Whoever waits for a run waits no longer than for what is there already.
            taken = server.take(None if gathered and self._runs.has_work() else look_at)
            if taken is None:
                return True
            if not taken and not gathered and self._rest is not None:
                self._rest()
            if not gathered:
                began = time.monotonic()
            gathered = gathered + 1 if taken else 0
            is_enough = gathered >= _GATHERED_EVENTS or time.monotonic() - began > _LONGEST_GATHER_SECONDS
            if not taken or is_enough:
                for live in self._arriving.give_way():
                    live.end(self._wording(failure_of(QueueFull(_TOO_SLOW))))
                moment = self._runs.advance()
                now = self._looked_seconds = time.monotonic()
                latest = now + _LOOK_SECONDS
                look_at = latest if moment is None else min(moment, latest)
                gathered = 0
            if self._is_cutting and not self._is_cut:
                self._is_cut = True
                server.shut_down()

    # --- a call ---

    def _accept(self, live: LiveCall) -> None:
        """Begin to answer a call."""
        self._open.add(live)
        live.leave = self._leave
        if self._is_holding:
            self._hold(live)
            return
        if live.refusal is not None:
            live.end(live.refusal)
            return
        method = self._methods.get(live.path)
        if method is None:
            sentence = sendable(f"This server does not know the method {live.path}.")
            live.end(Failure(Code.UNIMPLEMENTED, sentence))
            return
        call = _call_of(live)
        caller = attempt(lambda: self._guard(live.path, call))
        if self._access_log.is_on:
            self._log_end(live, call)
        if isinstance(caller, Failure):
            live.end(self._wording(caller))
            return
        call.caller = caller
        if isinstance(method, Streaming):
            self._open_stream(method, live, call)
        else:
            self._arriving.begin(live)
            live.read(lambda body: self._answer(method, live, call, body))

    def _log_end(self, live: LiveCall, call: Call) -> None:
        began = time.monotonic()

        def write() -> None:
            self._access_log.write(live.path, call, live.code, time.monotonic() - began)

        live.on_over(write)

    def _hold(self, live: LiveCall) -> None:
        """Leave a call to another server. Nobody waits here for it: it may end with its connection only."""
        live.refuse()
        self._forget(live)

    def _leave(self, live: LiveCall) -> None:
        self.counts.add(live.path, live.code)
        self._forget(live)

    def _forget(self, live: LiveCall) -> None:
        self._open.discard(live)
        if self._is_awaited:
            with self._changed:
                self._changed.notify_all()

    def _answer(self, method: Unary | Deferred, live: LiveCall, call: Call, body: Body | None) -> None:
        """Have a method with one answer answered, where its way says."""
        is_wanted = self._arriving.end(live)
        if not is_wanted:
            return
        if self._is_holding:
            self._hold(live)
            return
        if body is None:
            # The caller is gone, or sent no message: gRPC's own servers answer the latter so.
            live.end(Failure(Code.UNIMPLEMENTED, f"{live.path} takes exactly one message."))
            return
        reply = self._reply_to(live)
        if isinstance(method, Deferred):
            method.handler(body, call, reply)
        elif method.is_slow:
            self._slow_pool.submit(lambda: reply(answer(method.handler, bytes(body), call)))
        else:
            reply(answer(method.handler, bytes(body), call))

    def _reply_to(self, live: LiveCall) -> Reply:
        def reply(result: bytes | Failure) -> None:
            if isinstance(result, Failure):
                live.end(self._wording(result))
            else:
                live.answer(result)

        return reply

    def _open_stream(self, method: Streaming, live: LiveCall, call: Call) -> None:
        refused = attempt(lambda: self._places.enter(live.path))
        if refused is not None:
            live.end(self._wording(refused))
            return
        live.on_over(lambda: self._places.leave(method.path))
        stream = CallStream(live, self._wording)
        reader = attempt(lambda: method.handler(call, stream))
        if isinstance(reader, Failure):
            stream.finish(reader)
            return
        stream.attach(reader)
        stream.read()


def _call_of(live: LiveCall) -> Call:
    return Call(
        deadline_monotonic=live.deadline_monotonic,
        metadata=live.metadata,
        is_active=live.is_active,
        on_end=live.on_over,
        peer=lambda: peer_of(live),
    )
