"""Which calls a stopping server waits for, and which it holds."""

import threading
from collections.abc import Callable

from flyweight.server.rpc.open_calls import OpenCalls

PATIENCE_SECONDS = 30


class Caller:
    """Stands in for a call: keeps what is to be called at its end."""

    def __init__(self) -> None:
        self.ends: list[Callable[[], None]] = []

    def on_end(self, callback: Callable[[], None]) -> bool:
        self.ends.append(callback)
        return True


def test_nobody_is_waited_for_when_there_is_nobody() -> None:
    assert OpenCalls().wait_for_present(0.0)


def test_those_present_are_waited_for_and_newcomers_are_not() -> None:
    calls, present, newcomer = OpenCalls(), Caller(), Caller()
    calls.enter(present.on_end)
    assert not calls.wait_for_present(0.0)
    seen: list[bool] = []
    waiter = threading.Thread(target=lambda: seen.append(calls.wait_for_present(PATIENCE_SECONDS)))
    waiter.start()
    present.ends[0]()
    waiter.join(PATIENCE_SECONDS)
    calls.enter(newcomer.on_end)
    assert seen == [True]


def test_a_call_that_is_over_already_is_not_waited_for() -> None:
    calls = OpenCalls()
    calls.enter(lambda _: False)
    assert calls.wait_for_present(0.0)


def test_a_call_is_held_until_it_is_let_go() -> None:
    calls, caller, answered = OpenCalls(), Caller(), threading.Event()
    calls.hold()

    def handler() -> None:
        calls.enter(caller.on_end)
        answered.set()

    thread = threading.Thread(target=handler)
    thread.start()
    assert not answered.wait(0.05)
    calls.let_go()
    thread.join(PATIENCE_SECONDS)
    assert answered.is_set()
