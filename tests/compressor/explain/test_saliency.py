"""Maps of what an answer depends on, for models whose dependence is known."""

import numpy as np
import pytest

from flyweight.compressor.explain.saliency import compare_saliency, rank_correlation

IMAGES = {"x": np.random.default_rng(0).random((4, 1, 14, 14)).astype(np.float32)}


def looking_at(rows: slice, columns: slice):
    """Answer by the brightness of one part of the picture."""

    def answer(inputs) -> np.ndarray:
        weight = np.zeros((14, 14))
        weight[rows, columns] = np.linspace(1, 3, 14)[rows, None]
        score = (inputs["x"][:, 0] ** 2 * weight).sum(axis=(1, 2))
        return np.stack([score, -score], axis=1)

    return answer


def test_a_model_agrees_with_itself() -> None:
    answer = looking_at(slice(0, 7), slice(0, 14))
    found = compare_saliency(answer, answer, IMAGES)
    assert found is not None
    assert (found.correlation, found.lowest, found.samples) == (pytest.approx(1), pytest.approx(1), 4)


def test_models_that_look_at_opposite_halves_do_not_agree() -> None:
    top, bottom = looking_at(slice(0, 6), slice(0, 14)), looking_at(slice(8, 14), slice(0, 14))
    found = compare_saliency(top, bottom, IMAGES)
    assert found is not None
    assert found.correlation < 0


def test_tables_are_covered_in_stretches() -> None:
    inputs = {"x": np.random.default_rng(1).random((3, 40)).astype(np.float32)}

    def answer(given) -> np.ndarray:
        score = given["x"][:, :3].sum(axis=1)
        return np.stack([score, -score], axis=1)

    found = compare_saliency(answer, answer, inputs)
    assert found is not None
    assert found.samples == 3


def test_integers_cannot_be_covered() -> None:
    assert compare_saliency(lambda i: i["x"], lambda i: i["x"], {"x": np.zeros((2, 9), dtype=int)}) is None


def test_rank_correlation_by_hand() -> None:
    """1 - 6 * sum d**2 / (n (n**2 - 1)) with d = (0, 0, 1, 1) is 1 - 12 / 60."""
    assert rank_correlation(np.array([1, 2, 3, 4]), np.array([10, 20, 40, 30])) == pytest.approx(0.8)
    assert rank_correlation(np.ones(4), np.ones(4)) == 1.0
    assert rank_correlation(np.ones(4), np.arange(4)) == 0.0
