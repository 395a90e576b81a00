"""Which messages give way when too many are on their way."""

import pytest

from flyweight.server.rpc.arriving import Arriving


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_young_ones_never_count(clock: Clock) -> None:
    arriving: Arriving[int] = Arriving(2, clock)
    for sender in range(100):
        arriving.begin(sender)
    assert arriving.give_way() == []
    assert len(arriving) == 100


def test_the_newest_give_way_while_the_others_may_still_come(clock: Clock) -> None:
    arriving: Arriving[int] = Arriving(2, clock)
    for sender in range(4):
        arriving.begin(sender)
        clock.now += 0.2
    assert arriving.give_way() == [2, 3]
    assert arriving.give_way() == []
    assert arriving.end(0)
    assert arriving.end(1)


def test_those_who_took_long_give_way_first(clock: Clock) -> None:
    arriving: Arriving[int] = Arriving(2, clock)
    for sender in range(2):
        arriving.begin(sender)
    clock.now += 60
    for sender in range(2, 5):
        arriving.begin(sender)
    assert arriving.give_way() == []
    clock.now += 1
    assert arriving.give_way() == [0, 1, 4]
    assert arriving.end(2)


def test_one_that_gave_way_has_ended_before(clock: Clock) -> None:
    arriving: Arriving[str] = Arriving(0, clock)
    arriving.begin("slow")
    clock.now += 1
    assert arriving.give_way() == ["slow"]
    assert not arriving.end("slow")


def test_one_that_came_is_forgotten(clock: Clock) -> None:
    arriving: Arriving[str] = Arriving(1, clock)
    arriving.begin("a")
    assert arriving.end("a")
    assert len(arriving) == 0
