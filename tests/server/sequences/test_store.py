"""Turns and states of sequences: an accumulator, whose state is the sum of what came so far."""

import random
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flyweight.server.errors import InvalidRequest, QueueFull
from flyweight.server.sequences import Sequences, SequenceSpec, SequenceStep, Ticket, holder_of
from flyweight.server.sequences.controls import ControlSpec, Told
from flyweight.server.sequences.spec import StateSpec

SPEC = SequenceSpec(
    controls=(
        ControlSpec("START", Told.START, "INT32", (1, 1)),
        ControlSpec("END", Told.END, "INT32", (1, 1)),
    ),
    states=(StateSpec("SUM_IN", "SUM_OUT", np.array([[100]], np.int64)),),
    idle_seconds=10.0,
    most=3,
)


class Bench:
    """A store whose clock a test moves, and the steps whose turn has come."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.store = Sequences(SPEC, "The variant '1' of the model 'm'", lambda: self.seconds)
        self.turns: list[tuple[str, SequenceStep]] = []

    def admit(self, key: int | str = 7, flags: str = "", name: str = "", rows: int = 1) -> Ticket:
        return self.store.admit(
            key,
            start="s" in flags,
            end="e" in flags,
            rows=rows,
            when_turn=lambda step: self.turns.append((name, step)),
        )

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.turns]

    def told(self) -> tuple[int, int, int]:
        """Return START, END and SUM_IN of the last step."""
        step = self.turns[-1][1]
        assert step.outputs == ("SUM_OUT",)
        return tuple(int(step.inputs[name][0, 0]) for name in ("START", "END", "SUM_IN"))  # type: ignore[return-value]


def total(value: int) -> dict[str, np.ndarray]:
    return {"SUM_OUT": np.array([[value]], np.int64)}


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_state_of_one_request_is_the_nexts(bench: Bench) -> None:
    bench.admit(flags="s").complete(total(5))
    assert bench.told() == (1, 0, 100)
    bench.admit().complete(total(6))
    assert bench.told() == (0, 0, 5)
    bench.admit(flags="e").complete(total(0))
    assert bench.told() == (0, 1, 6)
    assert len(bench.store) == 0


def test_a_sequence_of_one_request_starts_and_ends(bench: Bench) -> None:
    bench.admit(flags="se").complete(total(5))
    assert bench.told() == (1, 1, 100)
    assert not bench.store.knows(7)


def test_sequences_keep_their_states_apart(bench: Bench) -> None:
    bench.admit(1, "s").complete(total(1))
    bench.admit("one", "s").complete(total(2))
    bench.admit(1)
    assert bench.told() == (0, 0, 1)
    bench.admit("one")
    assert bench.told() == (0, 0, 2)


def test_requests_of_one_sequence_run_one_after_the_other(bench: Bench) -> None:
    first, second = bench.admit(flags="s", name="first"), bench.admit(name="second")
    third = bench.admit(flags="e", name="third")
    assert bench.names == ["first"]
    first.complete(total(5))
    assert bench.names == ["first", "second"]
    assert bench.told() == (0, 0, 5)
    second.complete(total(6))
    third.complete(total(7))
    assert bench.names == ["first", "second", "third"]
    assert len(bench.store) == 0


def test_other_sequences_do_not_wait(bench: Bench) -> None:
    bench.admit(1, "s", "first")
    bench.admit(2, "s", "second")
    assert bench.names == ["first", "second"]


@pytest.mark.parametrize("prepare", ["never", "ended", "ending", "silent"])
def test_a_request_without_a_start_needs_a_sequence_under_way(bench: Bench, prepare: str) -> None:
    if prepare != "never":
        ticket = bench.admit(flags="s" if prepare == "silent" else "se")
        if prepare != "ending":
            ticket.complete(total(1))
        bench.seconds = 10.0 if prepare == "silent" else 0.0
    with pytest.raises(InvalidRequest, match=r"no sequence 7 under way; the first .* needs sequence_start"):
        bench.admit()


def test_a_second_start_begins_anew_after_what_was_sent_before(bench: Bench) -> None:
    first = bench.admit(flags="s", name="first")
    bench.admit(flags="s", name="second")
    first.complete(total(5))
    assert bench.names == ["first", "second"]
    assert bench.told() == (1, 0, 100)


def test_a_failed_run_leaves_the_state_as_it_was(bench: Bench) -> None:
    bench.admit(flags="s").complete(total(5))
    bench.admit().fail()
    bench.admit()
    assert bench.told() == (0, 0, 5)


def test_a_failed_start_leaves_the_initial_state(bench: Bench) -> None:
    bench.admit(flags="s").fail()
    bench.admit()
    assert bench.told() == (0, 0, 100)


def test_settling_twice_counts_once(bench: Bench) -> None:
    first = bench.admit(flags="s")
    bench.admit(name="second")
    first.complete(total(5))
    first.complete(total(6))
    first.fail()
    assert bench.names == ["", "second"]
    assert bench.told() == (0, 0, 5)


def test_who_waits_may_leave_and_is_skipped(bench: Bench) -> None:
    first = bench.admit(flags="s", name="first")
    second = bench.admit(name="second")
    bench.admit(name="third")
    assert second.leave()
    assert not second.leave()
    first.complete(total(5))
    assert bench.names == ["first", "third"]


def test_who_runs_cannot_leave(bench: Bench) -> None:
    first = bench.admit(flags="s")
    assert not first.leave()
    first.complete(total(5))
    assert not first.leave()


def test_the_one_behind_a_start_that_left_is_the_first(bench: Bench) -> None:
    """Otherwise it would go on with the sequence before, which is another one."""
    old = bench.admit(flags="s", name="old")
    start = bench.admit(flags="s", name="start")
    bench.admit(name="next")
    start.leave()
    old.complete(total(5))
    assert bench.names == ["old", "next"]
    assert bench.told() == (1, 0, 100)


def test_an_end_that_left_has_not_ended(bench: Bench) -> None:
    first, last = bench.admit(flags="s"), bench.admit(flags="e")
    last.leave()
    first.complete(total(5))
    bench.admit()
    assert bench.told() == (0, 0, 5)


def test_silent_sequences_are_forgotten_and_busy_ones_are_not(bench: Bench) -> None:
    bench.admit(1, "s").complete(total(1))
    busy = bench.admit(2, "s")
    bench.seconds = 9.0
    bench.admit(3, "s").complete(total(3))
    bench.seconds = 12.0
    assert [bench.store.knows(key) for key in (1, 2, 3)] == [False, True, True]
    busy.complete(total(2))
    bench.seconds = 21.9
    assert [bench.store.knows(key) for key in (1, 2, 3)] == [False, True, False]


def test_the_number_of_sequences_is_bounded(bench: Bench) -> None:
    for key in (1, 2, 3):
        bench.admit(key, "s").complete(total(1))
    with pytest.raises(QueueFull, match="keeps its 3 sequences already"):
        bench.admit(4, "s")
    bench.admit(1, "e").complete(total(1))
    bench.admit(4, "s")


def test_the_number_of_waiting_requests_is_bounded(bench: Bench) -> None:
    bench.admit(flags="s")
    for _ in range(63):
        bench.admit()
    with pytest.raises(QueueFull, match="64 requests of the sequence 7 wait already"):
        bench.admit()


@pytest.mark.parametrize("key", [0, ""])
def test_a_request_names_its_sequence(bench: Bench, key: int | str) -> None:
    with pytest.raises(InvalidRequest, match="send a sequence_id"):
        bench.admit(key, "s")


def test_a_request_holds_one_row(bench: Bench) -> None:
    with pytest.raises(InvalidRequest, match="one row a request, not 2"):
        bench.admit(flags="s", rows=2)
    assert len(bench.store) == 0


def test_what_is_kept_is_not_a_view_of_the_batch(bench: Bench) -> None:
    batch = np.zeros((100, 1), np.int64)
    bench.admit(flags="s").complete({"SUM_OUT": batch[4:5]})
    batch[:] = 9
    bench.admit()
    assert bench.told() == (0, 0, 0)


def test_running_on_the_spot_does_not_nest(bench: Bench) -> None:
    """Sixty requests that are run by whoever settles the one before them, on one shallow stack."""
    tickets: dict[int, Ticket] = {}
    depth = deepest = 0

    def run(number: int) -> Callable[[SequenceStep], None]:
        def when_turn(step: SequenceStep) -> None:
            nonlocal depth, deepest
            depth += 1
            deepest = max(deepest, depth)
            if number:
                tickets[number].complete({"SUM_OUT": step.inputs["SUM_IN"] + 1})
            depth -= 1

        return when_turn

    for number in range(60):
        tickets[number] = bench.store.admit(7, start=not number, end=False, rows=1, when_turn=run(number))
    tickets[0].complete(total(0))
    assert deepest == 1
    bench.admit()
    assert bench.told() == (0, 0, 59)


def test_the_variant_that_began_a_sequence_is_found() -> None:
    class Variant:
        def __init__(self, sequences: Sequences | None) -> None:
            self.sequences = sequences

    a, b = Bench(), Bench()
    b.admit(7, "s")
    variants = {"plain": Variant(None), "a": Variant(a.store), "b": Variant(b.store)}
    assert holder_of(variants, 7) == "b"
    assert holder_of(variants, 8) is None


def test_threads_never_run_two_requests_of_one_sequence_at_once() -> None:
    """Sums of many threads' requests are what they would be one by one."""
    store = Sequences(replace(SPEC, idle_seconds=3600.0), "it")
    store.admit(7, start=True, end=False, rows=1, when_turn=lambda _: None).complete(total(0))
    running, overlaps = threading.Lock(), list[str]()

    def send(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            box: list[Ticket] = []
            turn = threading.Event()
            steps: list[SequenceStep] = []

            def when_turn(
                step: SequenceStep, steps: list[SequenceStep] = steps, turn: threading.Event = turn
            ) -> None:
                steps.append(step)
                turn.set()

            box.append(store.admit(7, start=False, end=False, rows=1, when_turn=when_turn))
            if chance.random() < 0.2 and box[0].leave():
                continue
            assert turn.wait(30)
            if not running.acquire(blocking=False):
                overlaps.append("two at once")
                return
            value = int(steps[0].inputs["SUM_IN"][0, 0])
            running.release()
            box[0].complete(total(value + 1))
            counted.append(1)

    counted: list[int] = []
    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not overlaps
    last: list[SequenceStep] = []
    store.admit(7, start=False, end=False, rows=1, when_turn=last.append)
    assert int(last[0].inputs["SUM_IN"][0, 0]) == len(counted)
