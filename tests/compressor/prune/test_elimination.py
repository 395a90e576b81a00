"""Optimal brain surgeon on a layer's inputs, beside solving the normal equations anew."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.prune import elimination
from flyweight.compressor.passes.prune.elimination import Remainder, eliminate, full_weights, lost


@pytest.fixture
def no_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let least squares alone decide."""
    monkeypatch.setattr(elimination, "_RIDGE", 1e-12)


def data(rows: int, columns: int, outputs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return rows whose columns have something to do with one another, and weights."""
    random = np.random.default_rng(seed)
    mixed = random.standard_normal((rows, columns)) @ random.standard_normal((columns, columns))
    return mixed + random.standard_normal((rows, columns)), random.standard_normal((columns, outputs))


def moments(rows: np.ndarray) -> np.ndarray:
    return rows.T @ rows / len(rows)


@pytest.mark.usefixtures("no_ridge")
def test_of_two_inputs_the_one_that_the_other_makes_up_for_goes() -> None:
    """By hand: H = [[1, 1/2], [1/2, 1]], H^-1 = 4/3 [[1, -1/2], [-1/2, 1]], W = (1, 2).

    dE of the first is 1 / (4/3) = 3/4, of the second 4 / (4/3) = 3; the second becomes 2 + 1/2 * 1 = 5/2.
    """
    second, weights = np.array([[1.0, 0.5], [0.5, 1.0]]), np.array([[1.0], [2.0]])
    (left,) = eliminate(second, weights, 1, 1)
    assert left.kept.tolist() == [1]
    assert left.weights == pytest.approx(np.array([[2.5]]))
    assert lost(second, weights, left, 1) == pytest.approx(0.75)
    assert full_weights(left, 2, 1).ravel() == pytest.approx([0.0, 2.5])


@pytest.mark.usefixtures("no_ridge")
def test_inputs_that_have_nothing_to_do_with_one_another_go_by_their_energy() -> None:
    """H is diagonal: dE is the weight squared times the moment, here 4, 9 and 1; nothing else changes."""
    second, weights = np.diag([4.0, 1.0, 0.25]), np.array([[1.0], [3.0], [2.0]])
    first, then = eliminate(second, weights, 1, 1)
    assert (first.kept.tolist(), then.kept.tolist()) == ([0, 1], [1])
    assert first.weights.ravel() == pytest.approx([1.0, 3.0])
    assert lost(second, weights, first, 1) == pytest.approx(1.0)
    assert lost(second, weights, then, 1) == pytest.approx(5.0)


@pytest.mark.usefixtures("no_ridge")
@pytest.mark.parametrize(("block", "step"), [(1, 1), (1, 4), (3, 1), (3, 2)])
def test_what_is_left_solves_the_normal_equations_of_what_stays(block: int, step: int) -> None:
    rows, weights = data(400, 12, 5)
    wanted, seen = rows @ weights, 0
    for left in eliminate(moments(rows), weights, block, step):
        columns = (left.kept[:, None] * block + np.arange(block)).ravel()
        solved, *_ = np.linalg.lstsq(rows[:, columns], wanted, rcond=None)
        assert left.weights == pytest.approx(solved, rel=1e-6, abs=1e-8)
        error = np.square(wanted - rows[:, columns] @ solved).sum() / len(rows)
        assert lost(moments(rows), weights, left, block) == pytest.approx(error, rel=1e-6)
        seen += 1
    assert seen == -(-12 // block // step) - 1


@pytest.mark.usefixtures("no_ridge")
@pytest.mark.parametrize("block", [1, 3])
def test_each_channel_that_goes_is_the_one_whose_going_costs_least(block: int) -> None:
    """The slower way: try every channel that is left, fit anew, and take the cheapest."""
    rows, weights = data(300, 12, 4, seed=1)
    wanted, left = rows @ weights, list(range(12 // block))

    def error(kept: list[int]) -> float:
        columns = (np.array(kept)[:, None] * block + np.arange(block)).ravel()
        solved, *_ = np.linalg.lstsq(rows[:, columns], wanted, rcond=None)
        return float(np.square(wanted - rows[:, columns] @ solved).sum())

    by_one = {len(each.kept): each.kept.tolist() for each in eliminate(moments(rows), weights, block, 1)}
    by_two = {len(each.kept): each.kept.tolist() for each in eliminate(moments(rows), weights, block, 2)}
    while len(left) > 1:
        left = min(([each for each in left if each != gone] for gone in left), key=error)
        assert by_one[len(left)] == left
        # A step of several is that many steps of one.
        assert by_two.get(len(left), left) == left


@pytest.mark.parametrize("block", [1, 2])
def test_of_copies_one_each_goes_first_and_costs_almost_nothing(block: int) -> None:
    """Chosen all at once, both copies of a channel that is read little would go."""
    random = np.random.default_rng(2)
    rows, weights = random.standard_normal((500, 8)), random.standard_normal((8, 6))
    weights[:4] *= 0.5
    twice, weights = np.hstack([rows, rows]), np.vstack([weights, weights])
    second, count = moments(twice), 8 // block
    left = next(eliminate(second, weights, block, count))
    assert sorted(left.kept % count) == list(range(count))
    energy = np.einsum("io,io->", weights, second @ weights)
    assert lost(second, weights, left, block) < 0.01 * energy


def test_a_channel_that_is_always_zero_goes_first() -> None:
    rows, weights = data(200, 6, 3)
    rows[:, 4] = 0
    left = next(eliminate(moments(rows), weights, 1, 1))
    assert left.kept.tolist() == [0, 1, 2, 3, 5]
    assert left.weights == pytest.approx(weights[[0, 1, 2, 3, 5]], rel=1e-9)


def test_data_without_anything_in_them_change_no_weight() -> None:
    weights = np.arange(8.0).reshape(4, 2)
    (left,) = eliminate(np.zeros((4, 4)), weights, 1, 2)
    assert left.kept.tolist() == [2, 3]
    assert left.weights.tolist() == [[4.0, 5.0], [6.0, 7.0]]


def test_widths_become_multiples_of_the_step_first() -> None:
    rows, weights = data(100, 11, 2)
    assert [len(left.kept) for left in eliminate(moments(rows), weights, 1, 4)] == [8, 4]
    assert list(eliminate(moments(rows), weights, 1, 11)) == []


def test_a_remainder_of_everything_loses_nothing() -> None:
    rows, weights = data(100, 4, 2)
    assert lost(moments(rows), weights, Remainder(np.arange(2), weights), 2) == 0


@given(
    seed=st.integers(0, 2**31),
    block=st.integers(1, 3),
    count=st.integers(2, 8),
    step=st.integers(1, 4),
    spread=st.floats(0, 3),
)
def test_loss_grows_with_what_goes(seed: int, block: int, count: int, step: int, spread: float) -> None:
    """And each remainder is of the one before it."""
    random = np.random.default_rng(seed)
    columns = count * block
    rows = random.standard_normal((4 * columns, columns)) @ np.diag(np.exp(random.normal(0, spread, columns)))
    weights = random.standard_normal((columns, 3))
    second = moments(rows)
    ridge = elimination._RIDGE * np.trace(second) / columns * np.eye(columns)
    whole = Remainder(np.arange(count), weights)
    steps = [whole, *eliminate(second, weights, block, step)]
    losses = [lost(second + ridge, weights, left, block) for left in steps]
    for (before, left), (less, more) in zip(pairwise(steps), pairwise(losses), strict=True):
        assert set(left.kept) < set(before.kept)
        assert more >= less * (1 - 1e-6)
        assert lost(second, weights, left, block) <= more


def test_moments_that_cannot_be_inverted_are_told(monkeypatch) -> None:
    """Two channels that are one, and nothing that holds their weights."""
    monkeypatch.setattr(elimination, "_RIDGE", 0.0)
    with pytest.raises(PassError, match="too uniform to fit it anew"):
        list(eliminate(np.ones((2, 2)), np.ones((2, 1)), 1, 1))
