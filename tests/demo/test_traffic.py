import threading

import pytest

from demo.traffic import flowing
from flyweight.client import Prediction, Unavailable


def answer(variant: str) -> Prediction:
    return Prediction({}, "digits", variant, "candidate", "split", "", {})


def test_every_request_is_counted_once_and_each_caller_sees_every_sample() -> None:
    sent: list[int] = []
    enough = threading.Event()

    def ask(index: int) -> tuple[Prediction, bool]:
        sent.append(index)
        if len(sent) >= 200:
            enough.set()
        return answer("int8"), index % 2 == 0

    with flowing([ask, ask], samples=10, seed=0) as traffic:
        assert enough.wait(30)
    assert len(traffic.answers) == len(sent)
    assert set(sent) == set(range(10))
    assert {found.variant for found in traffic.answers} == {"int8"}
    assert sum(found.correct for found in traffic.answers) == sum(index % 2 == 0 for index in sent)


def test_failed_request_is_kept_with_its_sentence_and_the_caller_goes_on() -> None:
    enough = threading.Event()
    calls = iter(range(1000000))

    def ask(index: int) -> tuple[Prediction, bool]:
        call = next(calls)
        if call == 3:
            raise Unavailable("nobody answers", code="UNAVAILABLE", details="")
        if call > 20:
            enough.set()
        return answer("int8"), True

    with flowing([ask], samples=5, seed=0) as traffic:
        assert enough.wait(30)
    assert [found.failure for found in traffic.answers if found.failure] == ["nobody answers"]


def test_callers_have_ended_when_the_block_ends_even_by_an_error() -> None:
    with pytest.raises(KeyboardInterrupt), flowing([lambda _: (answer("a"), True)], 5, 0) as traffic:
        raise KeyboardInterrupt
    assert traffic.enough.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("caller-")]
