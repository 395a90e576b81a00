"""The choice of ranks."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.factorize.graph import FactorizeGraph
from flyweight.compressor.passes.factorize.ladder import Rung, by_budget, by_energy, lost_energy, rank_steps
from flyweight.compressor.passes.factorize.layers import Geometry, Layer, Scheme, Watcher, ladder_of

WIDE = [Rung((), 100.0, 0.0), Rung((2,), 60.0, 0.05), Rung((1,), 30.0, 0.2)]
FLAT = [Rung((), 100.0, 0.0), Rung((2,), 60.0, 0.3), Rung((1,), 30.0, 0.6)]


def test_the_energy_lost_is_a_fraction() -> None:
    assert lost_energy(np.array([6.0, 3.0, 1.0]), 1) == pytest.approx(0.4)
    assert lost_energy(np.zeros(3), 1) == 0.0


def test_ranks_are_multiples_below_the_whole() -> None:
    assert rank_steps(64, 16) == [16, 32, 48]
    assert rank_steps(16, 16) == []


def test_by_energy_takes_the_cheapest_that_keeps_enough() -> None:
    assert by_energy([WIDE, FLAT], 0.9) == [WIDE[1], FLAT[0]]
    assert by_energy([WIDE], 1.0) == [WIDE[0]]


def test_by_budget_cuts_where_it_costs_least() -> None:
    assert by_budget([WIDE, FLAT], 0.65) == [WIDE[2], FLAT[0]]
    assert by_budget([WIDE, FLAT], 1.0) == [WIDE[0], FLAT[0]]


def test_a_budget_below_all_ranks_is_refused_with_the_nearest() -> None:
    with pytest.raises(PassError, match="the least is 30%"):
        by_budget([WIDE, FLAT], 0.1)


ladders = st.lists(
    st.lists(st.tuples(st.integers(1, 99), st.floats(0.0, 1.0)), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)


@settings(max_examples=60)
@given(ladders, st.floats(0.4, 1.0))
def test_a_budget_is_kept_and_hardly_beaten(raw: list[list[tuple[int, float]]], budget: float) -> None:
    """Beside all combinations tried one by one: at most one layer's step worse than the best of them."""
    made = [
        [Rung((), 100.0, 0.0), *(Rung((place,), macs, error) for place, (macs, error) in enumerate(ladder))]
        for ladder in raw
    ]
    allowed = [
        combination
        for combination in itertools.product(*made)
        if sum(rung.macs for rung in combination) <= budget * 100 * len(made)
    ]
    if not allowed:
        return
    found = by_budget(made, budget)
    assert sum(rung.macs for rung in found) <= budget * 100 * len(made) + 1e-6
    best = min(sum(rung.error for rung in combination) for combination in allowed)
    assert sum(rung.error for rung in found) <= best + 1.0 + 1e-9


def layer(out: int = 64, inner: int = 32, size: int = 3, **geometry: object) -> Layer:
    weight = np.random.default_rng(0).standard_normal((out, inner, size, size))
    return Layer("conv", weight, np.zeros(out), Geometry(places=10.0, **geometry))


def test_the_multiply_adds_of_each_scheme() -> None:
    """By hand for rank 16 of 64x32x3x3 at ten places."""
    costs = {scheme: {r.ranks: r.macs for r in ladder_of(layer(), scheme, 16)} for scheme in Scheme}
    assert costs[Scheme.CHANNEL][()] == 10 * 64 * 32 * 9
    assert costs[Scheme.CHANNEL][(16,)] == 10 * (16 * 32 * 9 + 64 * 16)
    assert costs[Scheme.SPATIAL][(16,)] == 10 * (16 * 32 * 3 + 64 * 16 * 3)
    assert costs[Scheme.TUCKER][(16, 16)] == 10 * (16 * 32 + 16 * 16 * 9 + 64 * 16)


def test_a_stride_makes_the_layers_before_it_dearer() -> None:
    strided = layer(strides=(2, 2))
    spatial = {r.ranks: r.macs for r in ladder_of(strided, Scheme.SPATIAL, 16)}
    assert spatial[(16,)] == 10 * (16 * 32 * 3 * 2 + 64 * 16 * 3)
    small = {r.ranks: r.macs for r in ladder_of(strided, Scheme.TUCKER, 16)}
    assert small[(16, 16)] == 10 * (16 * 32 * 4 + 16 * 16 * 9 + 64 * 16)


def test_only_what_is_cheaper_is_offered() -> None:
    for scheme in Scheme:
        rungs = ladder_of(layer(), scheme, 16)
        assert rungs[0].ranks == ()
        assert all(rung.macs < rungs[0].macs for rung in rungs[1:])
    assert ladder_of(layer(out=16, inner=16, size=1), Scheme.CHANNEL, 16) == [Rung((), 2560.0, 0.0)]


def test_answers_are_added_up_batch_by_batch() -> None:
    answers = np.random.default_rng(2).standard_normal((60, 3)) + 1.0
    watcher = Watcher(3, centred=True)
    for part in (answers[:25], answers[25:]):
        watcher.add(part)
    found = watcher.responses()
    assert found is not None
    np.testing.assert_allclose(found.mean, answers.mean(axis=0))
    np.testing.assert_allclose(found.moment, np.cov(answers.T, bias=True), atol=1e-12)


def test_answers_that_are_not_finite_are_not_followed() -> None:
    watcher = Watcher(2, centred=True)
    assert watcher.responses() is None
    watcher.add(np.full((4, 2), np.inf))
    with np.errstate(invalid="ignore"):
        assert watcher.responses() is None


@pytest.mark.parametrize("choice", [(0.0, None, 16), (1.1, None, 16), (0.9, 0.0, 16), (0.9, 0.5, 0)])
def test_choices_out_of_range_are_refused(choice: tuple[float, float | None, int]) -> None:
    energy, budget, step = choice
    with pytest.raises(RecipeError):
        FactorizeGraph(energy, budget, Scheme.CHANNEL, round_to=step)
