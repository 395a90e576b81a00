"""Sequences: requests that belong together, and a model that remembers what came before.

Source of all: Triton, protocol extensions, "Sequence Extension"; model configuration, sequence_batching.
"""

import itertools
from typing import Any

import numpy as np
import pytest
from oip.cases import BEWILDERED, SILENCE, case, extension
from oip.requests import add_raw, put_parameters, request
from oip.target import Answer, Target

SEQUENCE = extension("sequence")
# Ids that no other run against the same server has: it may remember them for a while.
_IDS = itertools.count(int.from_bytes(np.random.default_rng().bytes(4), "little") << 8)


@pytest.fixture
def identity() -> int:
    return next(_IDS)


def say(target: Target, value: int, **parameters: Any) -> Answer:
    made = request("counter")
    add_raw(made, "INPUT", "INT32", np.array([[value]], "<i4"))
    put_parameters(made.parameters, parameters)
    return target.infer(made)


def sum_of(answer: Answer) -> int:
    return int(answer.tensors()["OUTPUT"][1].ravel()[0])


def flags(position: int, last: int) -> dict[str, bool]:
    return {"sequence_start": position == 0, "sequence_end": position == last}


@case("sequence/state", SEQUENCE, "counter")
def test_a_sequence_remembers(target: Target, identity: int) -> None:
    """Requests of one sequence_id see the state that the one before left.

    Source: Triton, "Sequence Extension", sequence_id, sequence_start, sequence_end.
    """
    sums = [sum_of(say(target, 10 + n, sequence_id=identity, **flags(n, 3))) for n in range(4)]
    assert sums == [10, 21, 33, 46]


@case("sequence/start-again", SEQUENCE, "counter")
def test_a_start_clears_the_state(target: Target, identity: int) -> None:
    """A second sequence_start of one id begins anew.

    Source: Triton, "Sequence Extension", sequence_start.
    """
    for _ in range(2):
        assert sum_of(say(target, 5, sequence_id=identity, sequence_start=True)) == 5
        assert sum_of(say(target, 6, sequence_id=identity)) == 11
    say(target, 0, sequence_id=identity, sequence_end=True).must_be_ok()


@case("sequence/interleaved", SEQUENCE, "counter")
def test_sequences_do_not_see_one_another(target: Target) -> None:
    """Two sequences whose requests alternate each have their own state.

    Source: Triton, "Sequence Extension".
    """
    first, second = next(_IDS), next(_IDS)
    # Ended before they are judged, so that nothing is left behind.
    sums = []
    for position in range(3):
        for identity, value in ((first, 1), (second, 100)):
            sums.append(say(target, value, sequence_id=identity, **flags(position, 2)))
    assert [sum_of(answer) for answer in sums] == [1, 100, 2, 200, 3, 300]


@case("sequence/text-id", SEQUENCE, "counter")
def test_an_id_may_be_text(target: Target, identity: int) -> None:
    """A sequence_id may be a string, where the model's configuration asks for none of another type.

    Source: Triton, "Sequence Extension": "sequence_id : a string or uint64"; ALLOWED: an error that says so.
    """
    answers = [say(target, 1, sequence_id=f"text-{identity}", **flags(n, 1)) for n in range(2)]
    if all(answer.code.name == "OK" for answer in answers):
        assert [sum_of(answer) for answer in answers] == [1, 2]
    else:
        answers[0].must_be_refused(never=SILENCE | BEWILDERED)


@case("sequence/no-id", SEQUENCE, "counter")
def test_a_request_without_a_sequence_is_refused(target: Target) -> None:
    """A request without a sequence_id to a model of sequences is an error.

    Source: Triton, "Sequence Extension": id 0 is "not part of a sequence".
    """
    say(target, 1).must_be_refused(never=SILENCE | BEWILDERED)


@case("sequence/no-start", SEQUENCE, "counter")
def test_a_sequence_that_never_began_is_refused(target: Target, identity: int) -> None:
    """The first request of an id without sequence_start is an error.

    Source: Triton, "Sequence Extension", sequence_start.
    """
    say(target, 1, sequence_id=identity).must_be_refused(never=SILENCE | BEWILDERED)


@case("sequence/after-the-end", SEQUENCE, "counter")
def test_a_sequence_that_ended_is_over(target: Target, identity: int) -> None:
    """After sequence_end a request of the same id is an error until a new start.

    Source: Triton, "Sequence Extension", sequence_end.
    """
    say(target, 1, sequence_id=identity, sequence_start=True).must_be_ok()
    say(target, 1, sequence_id=identity, sequence_end=True).must_be_ok()
    say(target, 1, sequence_id=identity).must_be_refused(never=SILENCE | BEWILDERED)
    assert sum_of(say(target, 3, sequence_id=identity, sequence_start=True, sequence_end=True)) == 3


@case("sequence/one-request", SEQUENCE, "counter")
def test_a_sequence_may_be_one_request(target: Target, identity: int) -> None:
    """A request that both starts and ends a sequence is one.

    Source: Triton, "Sequence Extension".
    """
    answer = say(target, 7, sequence_id=identity, sequence_start=True, sequence_end=True)
    assert sum_of(answer) == 7
