"""How much of the server one caller may hold."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.errors import QueueFull
from flyweight.server.security.clients import ClientLimits


def test_a_caller_over_its_limit_is_refused_and_others_are_not() -> None:
    limits = ClientLimits(2)
    for _ in range(2):
        limits.enter("greedy")
    with pytest.raises(QueueFull, match="greedy has 2 requests inside") as caught:
        limits.enter("greedy")
    assert caught.value.retry_after_seconds > 0
    limits.enter("modest")
    limits.leave("greedy")
    limits.enter("greedy")


def test_no_limit_counts_nothing() -> None:
    limits = ClientLimits(0)
    for _ in range(1000):
        limits.enter("anybody")
    assert limits.known_callers == 0
    limits.leave("anybody")


def test_callers_without_a_request_are_forgotten() -> None:
    limits = ClientLimits(1)
    for number in range(1000):
        limits.enter(f"caller {number}")
        assert limits.known_callers == 1
        limits.leave(f"caller {number}")
    assert limits.known_callers == 0


@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 4))
def test_nobody_ever_has_more_inside_than_the_limit(callers: list[str], limit: int) -> None:
    limits, inside = ClientLimits(limit), dict.fromkeys("abc", 0)
    for caller in callers:
        if inside[caller] < limit:
            limits.enter(caller)
            inside[caller] += 1
        else:
            with pytest.raises(QueueFull):
                limits.enter(caller)
    for caller, count in inside.items():
        for _ in range(count):
            limits.leave(caller)
    assert limits.known_callers == 0


def test_threads_together_stay_within_the_limit() -> None:
    limits, most, inside, lock = ClientLimits(3), 0, 0, threading.Lock()

    def work(_: int) -> bool:
        nonlocal most, inside
        try:
            limits.enter("one")
        except QueueFull:
            return False
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
        limits.leave("one")
        return True

    with ThreadPoolExecutor(8) as pool:
        assert any(pool.map(work, range(2000)))
    assert most <= 3
    assert limits.known_callers == 0
