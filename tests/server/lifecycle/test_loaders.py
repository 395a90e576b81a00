"""Threads of loads: each its own, none after the end, and what is said when there are none."""

import threading

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.lifecycle.loaders import LoadThreads

SOON = 10.0


def test_every_job_has_a_thread_of_its_own() -> None:
    loaders, both, seen = LoadThreads(), threading.Barrier(3), set[int]()

    def job() -> None:
        seen.add(threading.get_ident())
        both.wait(SOON)

    loaders.submit(job)
    loaders.submit(job)
    both.wait(SOON)
    loaders.stop(SOON)
    assert len(seen) == 2
    assert threading.get_ident() not in seen


def test_after_the_end_nothing_is_begun() -> None:
    loaders, done = LoadThreads(), list[str]()
    loaders.stop(SOON)
    loaders.submit(lambda: done.append("late"))
    assert done == []


def test_without_threads_a_load_fails_and_is_not_done_by_whoever_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That thread would keep the lower priority of a load, with all that it starts."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    done: list[str] = []
    loaders = LoadThreads()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(LoadFailed, match="raise the limit on processes"):
        loaders.submit(lambda: done.append("here"))
    loaders.stop(SOON)
    assert done == []
