"""The mean and the second moments of what a layer reads, gathered a batch at a time."""

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import attribute

Matrix = NDArray[np.float64]

_ROWS_BYTES: Final = 32 << 20
"""Of patches that are held at once."""


@dataclass(slots=True)
class Moments:
    """Sums over rows x, shape (columns,), of d = x - origin: their number, sum d and sum d d^T.

    The origin is the mean of the first rows. Without it the covariance of values that hardly differ would be
    the difference of two large numbers, and what float32 loses of them more than what is left.
    """

    columns: int
    rows: int = 0
    origin: Matrix = field(init=False)
    total: Matrix = field(init=False)
    products: Matrix = field(init=False)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self.origin, self.total = np.zeros(self.columns), np.zeros(self.columns)
        self.products = np.zeros((self.columns, self.columns))

    def add(self, rows: Array) -> None:
        """Take in rows, shape (n, columns), as many at a time as memory allows."""
        step = max(1, _ROWS_BYTES // (4 * self.columns))
        for start in range(0, len(rows), step):
            part = rows[start : start + step].astype(np.float32, copy=False)
            if not self.rows:
                self.origin[:] = part.mean(axis=0, dtype=np.float64).astype(np.float32)
            part = part - self.origin.astype(np.float32)
            self.rows += len(part)
            self.total += part.sum(axis=0, dtype=np.float64)
            self.products += part.T @ part

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of the rows of both."""
        first, second = (self, other) if self.rows else (other, self)
        away = second.origin - first.origin
        both = Moments(self.columns)
        both.rows = first.rows + second.rows
        both.origin[:] = first.origin
        both.total[:] = first.total + second.total + second.rows * away
        mixed = np.outer(second.total, away)
        both.products[:] = first.products + second.products + mixed + mixed.T
        both.products += second.rows * np.outer(away, away)
        return both

    @property
    def mean(self) -> Matrix:
        """E[x], shape (columns,)."""
        return np.asarray(self.origin + self.total / max(self.rows, 1))

    def second(self, *, centred: bool) -> Matrix:
        """Return E[x x^T], or that of x - E[x]; shape (columns, columns)."""
        count = max(self.rows, 1)
        covariance = self.products / count - np.outer(self.total / count, self.total / count)
        return np.asarray(covariance if centred else covariance + np.outer(self.mean, self.mean))


def rows_read(
    node: onnx.NodeProto, kernel: tuple[int, ...], values: Array, most: int, random: np.random.Generator
) -> Array:
    """Return what a layer multiplies its weights with, (rows, columns).

    Args:
        node: a Conv of one group, a Gemm or a MatMul.
        kernel: the spatial shape of a convolution's weights; empty for products.
        values: what the node reads, (samples, channels, ...), or (..., columns) for products.
        most: rows of each sample, drawn at random where there are more.
        random: draws them.
    """
    if node.op_type != "Conv":
        rows = values.reshape(-1, values.shape[-1])
        chosen = _some(len(rows), most * len(values), random)
        return np.asarray(rows if chosen is None else rows[chosen])
    windows = _windows(node, kernel, values)
    places = windows.shape[2 : 2 + len(kernel)]
    chosen = _some(int(np.prod(places)), most, random)
    every = np.arange(np.prod(places)) if chosen is None else chosen
    # Places first, which indexing by arrays wants side by side.
    by_place = np.moveaxis(windows, (0, 1), (-2, -1))[np.unravel_index(every, places)]
    return np.moveaxis(by_place, (-2, -1), (0, 2)).reshape(len(values) * len(every), -1)


def _some(count: int, most: int, random: np.random.Generator) -> NDArray[np.intp] | None:
    """Return which of `count` to look at, or None for all."""
    return None if count <= most else np.sort(random.choice(count, most, replace=False))


def _windows(node: onnx.NodeProto, kernel: tuple[int, ...], values: Array) -> Array:
    """Return the patches a convolution sees, (samples, channels, *places, *kernel), as a view."""
    rank = len(kernel)
    pads = list(attribute(node, "pads", [0] * 2 * rank))
    strides, dilations = (list(attribute(node, name, [1] * rank)) for name in ("strides", "dilations"))
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    reach = tuple((size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True))
    windows = sliding_window_view(np.pad(values, widths), reach, axis=tuple(range(2, 2 + rank)))
    steps = tuple(slice(None, None, step) for step in (1, 1, *strides, *dilations))
    return np.asarray(windows[steps])
