import threading

import pytest

from flyweight.server.errors import DeadlineExceeded
from flyweight.server.runtime.slots import RunSlots


def test_no_more_turns_are_given_than_there_are() -> None:
    slots = RunSlots(2)
    inside, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2)

    def run() -> None:
        nonlocal inside, most
        with slots.hold():
            with lock:
                inside += 1
                most = max(most, inside)
            both.wait(10)
            with lock:
                inside -= 1

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert most == 2


def test_a_deadline_in_the_past_takes_no_turn_even_if_one_is_free() -> None:
    slots = RunSlots(1, monotonic=lambda: 100.0)
    with pytest.raises(DeadlineExceeded, match="before the request's turn"), slots.hold(99.0):
        pytest.fail("a turn was given")


def test_nobody_waits_past_the_deadline() -> None:
    now = 100.0
    slots = RunSlots(1, monotonic=lambda: now)
    with slots.hold(), pytest.raises(DeadlineExceeded, match="while the request waited"), slots.hold(100.001):
        pytest.fail("a second turn was given")


def test_the_wait_is_told() -> None:
    clock = iter([100.0, 100.25])
    with RunSlots(1, monotonic=lambda: next(clock)).hold(200.0) as waited:
        assert waited == 0.25


def test_a_turn_comes_back_after_an_error() -> None:
    slots = RunSlots(1)
    for _ in range(3):
        with pytest.raises(KeyError), slots.hold():
            raise KeyError
