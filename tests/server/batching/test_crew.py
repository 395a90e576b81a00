import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from flyweight.server.batching.crew import Crew

PATIENCE_SECONDS = 30


@pytest.fixture
def hire() -> Iterator[Callable[..., Crew[Any]]]:
    crews: list[Crew[Any]] = []

    def make(size: int, do: Callable[[Any], None]) -> Crew[Any]:
        crews.append(Crew(size, do))
        return crews[-1]

    yield make
    for crew in crews:
        crew.stop()


class Desk:
    """Where work is done, one step at a time by the test's leave."""

    def __init__(self) -> None:
        self.began, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self.done: list[Any] = []
        self.threads: set[threading.Thread] = set()

    def __call__(self, work: Any) -> None:
        self.threads.add(threading.current_thread())
        self.began.release()
        assert self.go_on.acquire(timeout=PATIENCE_SECONDS)
        self.done.append(work)

    def wait_for_beginners(self, count: int) -> None:
        for _ in range(count):
            assert self.began.acquire(timeout=PATIENCE_SECONDS)

    def let_go(self, count: int) -> None:
        for _ in range(count):
            self.go_on.release()


def test_starts_no_thread_before_there_is_work(hire: Callable[..., Crew[Any]]) -> None:
    before = set(threading.enumerate())
    hire(4, lambda _: None)
    assert set(threading.enumerate()) == before


def test_works_on_as_many_things_at_once_as_it_has_threads(hire: Callable[..., Crew[Any]]) -> None:
    desk = Desk()
    crew = hire(3, desk)
    for work in range(3):
        crew.hand(work)
    desk.wait_for_beginners(3)
    assert len(desk.threads) == 3
    desk.let_go(3)


def test_one_thing_after_the_other_takes_no_more_threads_than_it_may(hire: Callable[..., Crew[Any]]) -> None:
    desk = Desk()
    crew = hire(2, desk)
    for work in range(20):
        crew.hand(work)
        desk.let_go(1)
        desk.wait_for_beginners(1)
    assert len(desk.threads) <= 2


def test_work_that_comes_before_a_thread_is_free_is_done_by_the_next_one(
    hire: Callable[..., Crew[Any]],
) -> None:
    desk = Desk()
    crew = hire(1, desk)
    crew.hand("first")
    desk.wait_for_beginners(1)
    crew.hand("second")
    desk.let_go(2)
    desk.wait_for_beginners(1)
    crew.stop()
    for thread in desk.threads:
        thread.join(PATIENCE_SECONDS)
    assert desk.done == ["first", "second"]


def test_a_bug_ends_the_piece_of_work_and_not_the_thread(hire: Callable[..., Crew[Any]]) -> None:
    done: list[str] = []
    finished = threading.Event()

    def do(work: str) -> None:
        if work == "bad":
            raise ZeroDivisionError
        done.append(work)
        finished.set()

    crew = hire(1, do)
    crew.hand("bad")
    crew.hand("good")
    assert finished.wait(PATIENCE_SECONDS)
    assert done == ["good"]


def test_its_threads_end_once_their_work_is_done(hire: Callable[..., Crew[Any]]) -> None:
    desk = Desk()
    crew = hire(2, desk)
    crew.hand(1)
    crew.hand(2)
    desk.wait_for_beginners(2)
    crew.stop()
    assert all(thread.is_alive() for thread in desk.threads)
    desk.let_go(2)
    for thread in desk.threads:
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()
    assert sorted(desk.done) == [1, 2]
