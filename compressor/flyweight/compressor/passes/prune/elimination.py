"""Which channels a layer can do without, and what its other weights become: optimal brain surgeon.

A layer answers y = W^T x. Without some of its inputs the best it can do is to change the weights of the
others. With H = E[x x^T] + l I, taking column q from the inputs and changing the rest by

    dW = -H^-1[:, q] (H^-1[q, q])^-1 W[q]        costs        dE = tr(W[q]^T (H^-1[q, q])^-1 W[q])

of E|y - y'|^2 (B. Hassibi and D. Stork, "Second Order Derivatives for Network Pruning: Optimal Brain
Surgeon", NIPS 1992, equations 5 and 6; for whole groups of columns E. Kurtic, E. Frantar, D. Alistarh,
"ZipLM", NeurIPS 2023, equations 3 and 4), and what is left has

    H^-1 <- H^-1 - H^-1[:, q] (H^-1[q, q])^-1 H^-1[q, :].

l I holds the weights to what they were where the data say little.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.prune.second_moments import Matrix

_RIDGE: Final = 0.01
"""Of the mean diagonal: for the last layers of an image network, whose 40 maps of 7x7 pixels are hardly more
rows than they have columns; 0.0001 to 0.01 make no difference to layers that see more."""
_SMALLEST: Final = 1e-30
"""Keeps the moments of channels that are always zero invertible."""


@dataclass(frozen=True, slots=True)
class Remainder:
    """What is left of a layer after some of its input channels went.

    Attributes:
        kept: the channels, ascending.
        weights: (channels kept x block, outputs), of the columns in that order.
    """

    kept: NDArray[np.intp]
    weights: Matrix


def eliminate(moments: Matrix, weights: Matrix, block: int, step: int) -> Iterator[Remainder]:
    """Yield what is left without the channels that cost least, in steps to multiples of `step`.

    Of each step the channels are chosen one after the other, and go together.

    Args:
        moments: E[x x^T], shape (columns, columns).
        weights: shape (columns, outputs).
        block: neighbouring columns that are one channel.
        step: channels that go at a time; at first only those beyond a multiple of it.

    Raises:
        PassError: the moments cannot be inverted.
    """
    try:
        yield from _steps(moments, weights, block, step)
    except np.linalg.LinAlgError as error:
        raise PassError(
            f"What a layer of {len(moments)} columns reads is too uniform to fit it anew ({error}); give "
            "more calibration samples, or more different ones."
        ) from error


def _steps(moments: Matrix, weights: Matrix, block: int, step: int) -> Iterator[Remainder]:
    ridge = _RIDGE * max(float(np.trace(moments)) / len(moments), _SMALLEST)
    inverse: Matrix = np.asarray(np.linalg.inv(moments + ridge * np.eye(len(moments))), dtype=np.float64)
    kept, left = np.arange(len(moments) // block), weights.astype(np.float64)
    while len(kept) > step:
        going = len(kept) % step or step
        gone = _first_to_go(inverse, left, block, going)
        stays = np.setdiff1d(np.arange(len(kept)), gone)
        out, rest = _columns(gone, block), _columns(stays, block)
        moved = np.linalg.solve(inverse[np.ix_(out, out)], inverse[np.ix_(out, rest)])
        left = left[rest] - moved.T @ left[out]
        inverse = np.asarray(inverse[np.ix_(rest, rest)] - inverse[np.ix_(rest, out)] @ moved)
        kept = kept[stays]
        yield Remainder(kept, left)


def lost(moments: Matrix, weights: Matrix, remainder: Remainder, block: int) -> float:
    """Return E|y - y'|^2 between a layer and its remainder, on data with these second moments."""
    change = weights.astype(np.float64).copy()
    change[_columns(remainder.kept, block)] -= remainder.weights
    return float(np.einsum("io,io->", change, moments @ change))


def full_weights(remainder: Remainder, columns: int, block: int) -> Matrix:
    """Return the weights of a remainder with zeros where channels went, (columns, outputs)."""
    full = np.zeros((columns, remainder.weights.shape[1]))
    full[_columns(remainder.kept, block)] = remainder.weights
    return full


def _first_to_go(inverse: Matrix, weights: Matrix, block: int, number: int) -> NDArray[np.intp]:
    """Return the channels that go first, each chosen with those before it gone.

    Chosen all at once, two copies of a channel would go together. Without those chosen H^-1 is H^-1 - U U^T
    and W is W - U V, which costs need only a part of: the blocks of H^-1 on its diagonal, and W W^T there.
    """
    count, outputs = len(weights) // block, weights.shape[1]
    every, rows = np.arange(count), weights.reshape(count, block, outputs)
    own, grams = inverse.reshape(count, block, count, block)[every, :, every], rows @ rows.swapaxes(1, 2)
    gone, left, right = list[int](), np.zeros((len(weights), 0)), np.zeros((0, outputs))
    for _ in range(number):
        costs = np.trace(np.linalg.solve(own, grams), axis1=1, axis2=2)
        costs[gone] = np.inf
        gone.append(int(np.argmin(costs)))
        out = slice(gone[-1] * block, (gone[-1] + 1) * block)
        columns = inverse[:, out] - left @ left[out].T
        root = np.linalg.cholesky(columns[out])
        change = np.linalg.solve(root, columns.T).T
        value = np.linalg.solve(root, weights[out] - left[out] @ right)
        met = (weights @ value.T - left @ (right @ value.T)).reshape(count, block, block)
        left, right = np.hstack([left, change]), np.vstack([right, value])
        parts = change.reshape(count, block, block)
        mixed = (met - parts @ (value @ value.T) / 2) @ parts.swapaxes(1, 2)
        grams -= mixed + mixed.swapaxes(1, 2)
        own -= parts @ parts.swapaxes(1, 2)
        # What is gone has a block of zeros, which nothing could be divided by.
        own[gone] = np.eye(block)
    return np.sort(np.array(gone, dtype=np.intp))


def _columns(channels: NDArray[np.intp], block: int) -> NDArray[np.intp]:
    return np.asarray((channels[:, None] * block + np.arange(block)).ravel())
