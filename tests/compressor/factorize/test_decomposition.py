"""Low-rank forms of weights, and the laws they keep."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.compressor.passes.factorize.decomposition import (
    Responses,
    along_channels,
    along_space,
    corrected_bias,
    output_basis,
    spatial_spectrum,
    tucker,
    tucker_spectra,
)


def kernel(seed: int, out: int, inner: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((out, inner, height, width))


def composed(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.tensordot(second, first, axes=1)


def test_a_matrix_of_known_singular_values() -> None:
    """diag(3, 2, 1): rank 2 loses the 1, and keeps the rest as it is."""
    weight = np.diag([3.0, 2.0, 1.0])[:, :, None, None]
    basis = output_basis(weight)
    assert basis.energies == pytest.approx([9.0, 4.0, 1.0])
    kept = composed(*along_channels(weight, basis, 2))[:, :, 0, 0]
    np.testing.assert_allclose(kept, np.diag([3.0, 2.0, 0.0]), atol=1e-12)


shapes = st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=30)
@given(shapes, st.integers(0, 2**31))
def test_full_rank_gives_the_weight_back(shape: tuple[int, int, int, int], seed: int) -> None:
    weight = kernel(seed, *shape)
    np.testing.assert_allclose(
        composed(*along_channels(weight, output_basis(weight), shape[0])), weight, atol=1e-5
    )
    first, second = along_space(weight, min(shape[1] * shape[2], shape[0] * shape[3]))
    np.testing.assert_allclose(np.einsum("riy,orx->oiyx", first[..., 0], second[:, :, 0]), weight, atol=1e-5)
    narrow, core, wide = tucker(weight, shape[0], shape[1])
    np.testing.assert_allclose(np.einsum("si,rsyx,or->oiyx", narrow, core, wide), weight, atol=1e-5)


@settings(max_examples=30)
@given(shapes, st.integers(1, 8), st.integers(0, 2**31))
def test_the_error_is_the_energy_left_out(shape: tuple[int, int, int, int], rank: int, seed: int) -> None:
    """Eckart and Young 1936, for both ways to write a kernel as a matrix."""
    weight = kernel(seed, *shape)
    basis = output_basis(weight)
    lost = np.sum((weight - composed(*along_channels(weight, basis, rank))) ** 2)
    assert lost == pytest.approx(basis.energies[rank:].sum(), abs=1e-8)
    first, second = along_space(weight, rank)
    spatial = np.einsum("riy,orx->oiyx", first[..., 0], second[:, :, 0])
    assert np.sum((weight - spatial) ** 2) == pytest.approx(spatial_spectrum(weight)[rank:].sum(), abs=1e-8)


@settings(max_examples=30)
@given(shapes, st.integers(1, 8), st.integers(1, 6), st.integers(0, 2**31))
def test_tucker_loses_at_most_the_energies_of_both_modes(
    shape: tuple[int, int, int, int], out: int, inner: int, seed: int
) -> None:
    weight = kernel(seed, *shape)
    outputs, inputs = tucker_spectra(weight)
    narrow, core, wide = tucker(weight, min(out, shape[0]), min(inner, shape[1]))
    lost = np.sum((weight - np.einsum("si,rsyx,or->oiyx", narrow, core, wide)) ** 2)
    assert lost <= outputs[out:].sum() + inputs[inner:].sum() + 1e-8


def test_following_answers_loses_less_of_them_than_following_weights() -> None:
    """Inputs that hardly vary along most axes: the whitened SVD, written out, is the same optimum."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((12, 20))
    inputs = random.standard_normal((500, 20)) * np.linspace(4.0, 0.05, 20) @ random.standard_normal((20, 20))
    answers = inputs @ weight.T
    responses = Responses(np.zeros(12), answers.T @ answers / len(answers))

    def error(basis_of: Responses | None, rank: int = 4) -> float:
        lifted = weight[:, :, None, None]
        kept = composed(*along_channels(lifted, output_basis(lifted, basis_of), rank))[:, :, 0, 0]
        return float(np.sum((answers - inputs @ kept.T) ** 2))

    root = np.linalg.cholesky(inputs.T @ inputs)
    values = np.linalg.svd(weight @ root, compute_uv=False)
    best = float(np.sum(values[4:] ** 2))
    assert error(responses) == pytest.approx(best, rel=0.02)
    assert error(None) > 1.2 * best


def test_the_bias_keeps_the_mean_answer() -> None:
    """Zhang et al. 2016, equation 4: the mean is exact at every rank."""
    random = np.random.default_rng(1)
    weight, bias = random.standard_normal((8, 6)), random.standard_normal(8)
    inputs = random.standard_normal((200, 6)) + 2.0
    answers = inputs @ weight.T + bias
    centred = answers - answers.mean(axis=0)
    responses = Responses(answers.mean(axis=0), centred.T @ centred / len(answers))
    lifted = weight[:, :, None, None]
    basis = output_basis(lifted, responses)
    kept = composed(*along_channels(lifted, basis, 2))[:, :, 0, 0]
    found = inputs @ kept.T + corrected_bias(bias, responses, basis, 2)
    np.testing.assert_allclose(found.mean(axis=0), answers.mean(axis=0), atol=1e-10)
    assert corrected_bias(bias, None, basis, 2) is bias


def test_both_factors_are_equally_large() -> None:
    first, second = along_channels(weight := kernel(3, 6, 5, 3, 3), output_basis(weight), 4)
    np.testing.assert_allclose(
        np.linalg.norm(first.reshape(4, -1), axis=1), np.linalg.norm(second, axis=0), rtol=1e-6
    )
