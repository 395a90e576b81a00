"""Low-rank forms of a weight, in numpy: matrices by SVD, kernels along channels, space, or both (Tucker-2).

Kernels are of shape (out, in, height, width); a matrix is a kernel of 1 x 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Responses:
    """What a layer answers on calibration data, over all samples and places.

    Attributes:
        mean: of each output channel, shape (out,); zeros where the second moment is not centred.
        moment: E[(y - mean)(y - mean)^T], shape (out, out).
    """

    mean: Array
    moment: Array


@dataclass(frozen=True, slots=True)
class Basis:
    """Orthonormal directions of the outputs, the strongest first.

    Attributes:
        directions: shape (out, values); its first r columns span the best subspace of dimension r.
        energies: of each direction, falling, shape (values,).
    """

    directions: Array
    energies: Array


_PRIOR = 0.01
"""Weight of the layer's answers to white noise beside those to calibration data, of which there are few."""


def output_basis(weight: Array, responses: Responses | None = None) -> Basis:
    """Return the directions of the outputs that a low-rank layer should keep.

    Without responses, the left singular vectors of the weight as a matrix (out, in x height x width): by
    Eckart and Young 1936 keeping r of them is the best approximation of rank r of the *weight*.

    With responses, the eigenvectors of their covariance: with U the first r of them, U U^T W is the best
    approximation of rank r of the *answers*, min ||W X - W' X|| (Zhang et al. 2016, "Accelerating very deep
    convolutional networks", equations 3 to 5; whitening the inputs before an SVD, as SVD-LLM and DRONE do,
    has the same minimum).
    """
    matrix = weight.reshape(len(weight), -1)
    # All answers lie in the space of the weight's columns, which may be the smaller one.
    space = np.linalg.qr(matrix)[0] if len(matrix) > matrix.shape[1] else None
    within = matrix if space is None else space.T @ matrix
    gram = within @ within.T
    moment = gram
    if responses is not None:
        moment = responses.moment if space is None else space.T @ responses.moment @ space
        scale = np.trace(moment) / max(float(np.trace(gram)), 1e-30)
        moment = moment + _PRIOR * scale * gram
    energies, directions = np.linalg.eigh(moment)
    if space is not None:
        directions = space @ directions
    return Basis(np.asarray(directions[:, ::-1]), np.clip(energies[::-1], 0.0, None))


def along_channels(weight: Array, basis: Basis, rank: int) -> tuple[Array, Array]:
    """Return (first, second): a kernel (rank, in, h, w) and a matrix (out, rank); second @ first ~ weight."""
    directions = basis.directions[:, :rank]
    first = np.tensordot(directions.T, weight, axes=1)
    return _balanced(first, directions)


def corrected_bias(bias: Array, responses: Responses | None, basis: Basis, rank: int) -> Array:
    """Return the bias that keeps the mean answer: U U^T (b - mean) + mean (Zhang et al. 2016, equation 4)."""
    if responses is None:
        return bias
    directions = basis.directions[:, :rank]
    kept: Array = directions @ (directions.T @ (bias - responses.mean)) + responses.mean
    return kept


def spatial_spectrum(weight: Array) -> Array:
    """Return the squared singular values of the kernel as a matrix (in x height, out x width)."""
    spectrum: Array = np.linalg.svd(_spatial_matrix(weight), compute_uv=False).astype(np.float64) ** 2
    return spectrum


def along_space(weight: Array, rank: int) -> tuple[Array, Array]:
    """Return kernels (rank, in, height, 1) and (out, rank, 1, width) whose composition is nearest to weight.

    Jaderberg et al. 2014, "Speeding up convolutional neural networks with low rank expansions", scheme 2;
    the optimum is an SVD (Tai et al. 2016, theorem 1).
    """
    out, inner, height, width = weight.shape
    left, values, right = np.linalg.svd(_spatial_matrix(weight), full_matrices=False)
    rank = min(rank, len(values))
    root = np.sqrt(values[:rank])
    first = (left[:, :rank] * root).T.reshape(rank, inner, height, 1)
    second = (root[:, None] * right[:rank]).reshape(rank, out, width).transpose(1, 0, 2)
    return first, np.ascontiguousarray(second[:, :, None, :])


def tucker_spectra(weight: Array) -> tuple[Array, Array]:
    """Return the squared singular values of the kernel unfolded along its outputs and along its inputs."""
    return output_basis(weight).energies, output_basis(weight.swapaxes(0, 1)).energies


def tucker(weight: Array, rank_out: int, rank_in: int) -> tuple[Array, Array, Array]:
    """Return a matrix (rank_in, in), a kernel (rank_out, rank_in, h, w) and a matrix (out, rank_out).

    Tucker-2 by the higher-order SVD: Kim et al. 2016, "Compression of deep convolutional neural networks for
    fast and low power mobile applications", section 3.1. Its squared error is at most the energies left out
    along both modes together (De Lathauwer et al. 2000, property 10).
    """
    outputs = output_basis(weight).directions[:, :rank_out]
    inputs = output_basis(weight.swapaxes(0, 1)).directions[:, :rank_in]
    core = np.einsum("oihw,or,is->rshw", weight, outputs, inputs)
    return inputs.T, core, outputs


def _spatial_matrix(weight: Array) -> Array:
    out, inner, height, width = weight.shape
    return weight.transpose(1, 2, 0, 3).reshape(inner * height, out * width)


def _balanced(first: Array, second: Array) -> tuple[Array, Array]:
    """Return both factors with equally long vectors for each rank, so that both quantize and train well."""
    lengths = np.linalg.norm(first.reshape(len(first), -1), axis=1)
    others = np.linalg.norm(second, axis=0)
    ratio = np.sqrt(np.maximum(others, 1e-12) / np.maximum(lengths, 1e-12))
    shaped = ratio.reshape(-1, *[1] * (first.ndim - 1))
    return first * shaped, second / ratio
