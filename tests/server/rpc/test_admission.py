import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from flyweight.server.errors import Cancelled, DeadlineExceeded, Draining, NotReady, QueueFull
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Call

PATIENCE_SECONDS = 30


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def open_gate(accepted: int = 8, running: int = 1, **clock: Callable[[], float]) -> Gate:
    gate = Gate(accepted, running, **clock)
    gate.open()
    return gate


class Caller:
    """A caller that may go away, and tells when the gate starts to listen for that."""

    def __init__(self, deadline_monotonic: float | None = None) -> None:
        self.listening = threading.Event()
        self._active = True
        self._callbacks: list[Callable[[], None]] = []
        self.call = Call(deadline_monotonic, (), lambda: self._active, self._listen)

    def _listen(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)
        self.listening.set()

    def go_away(self) -> None:
        self._active = False
        for callback in self._callbacks:
            callback()


def wait_turn(gate: Gate, caller: Caller, ran: list[Caller]) -> None:
    with gate.running(caller.call):
        ran.append(caller)


def test_starts_shut_and_can_be_opened_and_closed() -> None:
    gate = Gate(1, 1)
    with pytest.raises(NotReady), gate.accepted():
        pass
    gate.open()
    with gate.accepted():
        assert gate.accepted_count == 1
    gate.close()
    with pytest.raises(Draining), gate.accepted():
        pass


def test_refuses_one_too_many_with_push_back_and_recovers() -> None:
    gate = open_gate(accepted=2)
    with gate.accepted(), gate.accepted():
        with pytest.raises(QueueFull) as caught, gate.accepted():
            pass
        assert caught.value.retry_after_seconds > 0
    with gate.accepted():
        pass


def test_those_who_wait_run_in_the_order_they_came(pool: ThreadPoolExecutor) -> None:
    gate, ran = open_gate(), []
    callers = [Caller() for _ in range(4)]
    waits: list[Future[None]] = []
    with gate.running(Call()):
        for caller in callers:
            waits.append(pool.submit(wait_turn, gate, caller, ran))
            assert caller.listening.wait(PATIENCE_SECONDS)
        assert gate.waiting_count == 4
        assert ran == []
    for wait in waits:
        wait.result(PATIENCE_SECONDS)
    assert ran == callers


def test_no_more_run_at_once_than_allowed(pool: ThreadPoolExecutor) -> None:
    gate, lock = open_gate(running=2), threading.Lock()
    running = most = 0

    def work() -> None:
        nonlocal running, most
        with gate.running(Call()):
            with lock:
                running += 1
                most = max(most, running)
            with lock:
                running -= 1

    for future in [pool.submit(work) for _ in range(200)]:
        future.result(PATIENCE_SECONDS)
    assert 1 <= most <= 2
    assert gate.waiting_count == 0


def test_a_deadline_ends_the_wait_without_running(pool: ThreadPoolExecutor) -> None:
    now = 0.0
    gate, ran = open_gate(clock=lambda: now), []
    caller = Caller(deadline_monotonic=0.001)
    with gate.running(Call()):
        wait = pool.submit(wait_turn, gate, caller, ran)
        with pytest.raises(DeadlineExceeded):
            wait.result(PATIENCE_SECONDS)
        assert gate.waiting_count == 0
    assert ran == []


def test_a_deadline_in_the_past_takes_no_free_place() -> None:
    gate = open_gate(clock=lambda: 5.0)
    with pytest.raises(DeadlineExceeded), gate.running(Call(deadline_monotonic=4.0)):
        pass
    with gate.running(Call(deadline_monotonic=6.0)):
        pass


def test_a_caller_who_goes_away_leaves_the_queue_at_once(pool: ThreadPoolExecutor) -> None:
    gate, ran = open_gate(), []
    gone, stays = Caller(), Caller()
    with gate.running(Call()):
        first = pool.submit(wait_turn, gate, gone, ran)
        assert gone.listening.wait(PATIENCE_SECONDS)
        second = pool.submit(wait_turn, gate, stays, ran)
        assert stays.listening.wait(PATIENCE_SECONDS)
        gone.go_away()
        with pytest.raises(Cancelled):
            first.result(PATIENCE_SECONDS)
        assert gate.waiting_count == 1
    second.result(PATIENCE_SECONDS)
    assert ran == [stays]


def test_the_transports_clock_may_run_a_little_ahead_of_ours() -> None:
    gate = open_gate(clock=lambda: 1.0)
    call = Call(deadline_monotonic=1.001, is_active=lambda: False)
    with pytest.raises(DeadlineExceeded), gate.running(call):
        pass


def test_a_place_granted_to_a_caller_who_just_left_goes_to_the_next(pool: ThreadPoolExecutor) -> None:
    gate, ran = open_gate(), []
    active = True
    left = Call(is_active=lambda: active)
    listening = threading.Event()
    next_caller = Caller()

    def leave(_: Callable[[], None]) -> None:
        listening.set()

    quiet = Call(is_active=left.is_active, on_end=leave)

    def wait_quietly() -> None:
        with gate.running(quiet):
            ran.append(None)

    with gate.running(Call()):
        first = pool.submit(wait_quietly)
        assert listening.wait(PATIENCE_SECONDS)
        second = pool.submit(wait_turn, gate, next_caller, ran)
        assert next_caller.listening.wait(PATIENCE_SECONDS)
        active = False
    with pytest.raises(Cancelled):
        first.result(PATIENCE_SECONDS)
    second.result(PATIENCE_SECONDS)
    assert ran == [next_caller]
    with gate.running(Call()):
        pass


def test_waits_until_it_is_empty(pool: ThreadPoolExecutor) -> None:
    gate = open_gate()
    with gate.accepted():
        assert not gate.wait_until_empty(0)
        waiting = pool.submit(gate.wait_until_empty, PATIENCE_SECONDS)
    assert waiting.result(PATIENCE_SECONDS)
