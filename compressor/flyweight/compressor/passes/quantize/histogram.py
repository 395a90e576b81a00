"""Ranges of activations, learned from a stream of values in constant memory.

Four ways to choose the range [low, high] that 8 bits have to cover:

- minmax: all values seen. Nothing is clipped.
- percentile: the central p percent of the values; outliers are clipped.
- entropy: the threshold whose quantized distribution loses least information, by Kullback-Leibler divergence
  (S. Migacz, "8-bit Inference with TensorRT", GTC 2017, the calibration algorithm).
- mse: the range whose quantized values are nearest to the values in the mean square (R. Banner et al., "Post
  training 4-bit quantization of convolutional networks", NeurIPS 2019, section 3, measured, not modelled).
"""

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

BINS: Final = 2048
# The mse search tries so many limits at each end, from all of the range down to a fifth of it.
_LIMITS: Final = 41
_SMALLEST_SHARE: Final = 0.2
_STEPS: Final = 255
# Migacz quantizes the reference distribution into 128 levels for a signed byte.
_LEVELS: Final = 128


@dataclass(slots=True)
class Extremes:
    """The smallest and the largest value seen."""

    low: float = float("inf")
    high: float = float("-inf")

    def add(self, values: Array) -> None:
        """Take in values of any shape; what is not finite is left out."""
        if values.size == 0:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            finite = values[np.isfinite(values)]
            if finite.size == 0:
                return
            low, high = float(finite.min()), float(finite.max())
        self.low, self.high = min(self.low, low), max(self.high, high)

    @property
    def seen(self) -> bool:
        """Whether there was any finite value."""
        return self.low <= self.high


@dataclass(slots=True)
class Histogram:
    """Counts of values in `BINS` equal bins between `low` and `high`, found in a first pass over the data."""

    low: float
    high: float
    counts: Array = field(default_factory=lambda: np.zeros(BINS, dtype=np.int64))

    def add(self, values: Array) -> None:
        """Take in values of any shape."""
        if not self.high > self.low:
            return
        finite = values[np.isfinite(values)].astype(np.float64, copy=False)
        inside = finite[(finite >= self.low) & (finite <= self.high)]
        # numpy.histogram's own way for equal bins, without its chunks and its passes over them.
        place = ((inside - self.low) * (BINS / (self.high - self.low))).astype(np.intp)
        self.counts += np.bincount(np.minimum(place, BINS - 1), minlength=BINS)

    @property
    def edges(self) -> Array:
        """The `BINS` + 1 limits of the bins."""
        return np.linspace(self.low, self.high, BINS + 1)

    def percentile_range(self, percentile: float) -> tuple[float, float]:
        """Return the range of the central `percentile` percent of the values, to the width of a bin."""
        total = int(self.counts.sum())
        if total == 0:
            return self.low, self.high
        tail = total * (1 - percentile / 100) / 2
        cumulated = np.cumsum(self.counts)
        first = int(np.searchsorted(cumulated, tail, side="right"))
        last = int(np.searchsorted(cumulated, total - tail, side="left"))
        edges = self.edges
        return float(edges[min(first, BINS - 1)]), float(edges[min(last, BINS - 1) + 1])

    def entropy_range(self) -> tuple[float, float]:
        """Return the range that clips magnitudes at the threshold of least divergence."""
        centers = np.abs((self.edges[:-1] + self.edges[1:]) / 2)
        limit = max(abs(self.low), abs(self.high))
        if limit == 0 or not self.counts.any():
            return self.low, self.high
        magnitudes, _ = np.histogram(centers, bins=BINS, range=(0, limit), weights=self.counts)
        # After a ReLU half of all values are exactly zero, which any range represents: they say nothing.
        magnitudes[0] = magnitudes[1]
        threshold = limit * _least_divergent(magnitudes) / BINS
        return max(self.low, -threshold), min(self.high, threshold)

    def mse_range(self) -> tuple[float, float]:
        """Return the range of least squared error between the values and their 8-bit forms.

        The error of a range is sum n_i (c_i - Q(c_i))^2 over bins of count n_i and centre c_i. Both ends are
        searched, one after the other, until neither moves: the error is near enough to separable.
        """
        if not self.high > self.low or not self.counts.any():
            return self.low, self.high
        occupied = self.counts > 0
        centers = ((self.edges[:-1] + self.edges[1:]) / 2)[occupied]
        counts = self.counts[occupied]
        shares = np.linspace(_SMALLEST_SHARE, 1, _LIMITS)[::-1]
        low, high = self.low, self.high

        def error(limits: tuple[float, float]) -> float:
            return squared_error(centers, counts, *limits)

        for _ in range(3):
            before = (low, high)
            highs = [(low, float(end)) for end in self.high * shares]
            high = min(highs, key=error)[1]
            lows = [(float(end), high) for end in self.low * shares]
            low = min(lows, key=error)[0]
            if (low, high) == before:
                break
        return low, high


def squared_error(values: Array, counts: Array, low: float, high: float) -> float:
    """Return sum counts (values - Q(values))^2 for 255 equal steps over [low, high], widened to hold zero."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = (high - low) / _STEPS
    if scale == 0:
        return float(np.sum(counts * np.square(values)))
    zero = np.rint(-low / scale)
    quantized = (np.clip(np.rint(values / scale) + zero, 0, _STEPS) - zero) * scale
    return float(np.sum(counts * np.square(values - quantized)))


def _least_divergent(counts: Array) -> int:
    """Return how many leading bins to keep: the candidate whose 128-level form diverges least."""
    # The step is the resolution of the answer, a 128th of the range, and bounds the work.
    candidates = range(_LEVELS, len(counts) + 1, _LEVELS // 8)
    divergences = [divergence(counts, bins) for bins in candidates]
    return candidates[int(np.argmin(divergences))]


def divergence(counts: Array, bins: int) -> float:
    """Return KL(P || Q) for a range of the first `bins` bins.

    P holds these bins, all further counts added to the last; Q is P without those, in 128 levels.
    """
    kept = counts[:bins].astype(np.float64)
    reference = kept.copy()
    reference[-1] += counts[bins:].sum()
    level = np.arange(bins) * _LEVELS // bins
    sums = np.bincount(level, weights=kept, minlength=_LEVELS)
    occupied = np.bincount(level, weights=kept > 0, minlength=_LEVELS)
    spread = np.divide(sums, occupied, out=np.zeros(_LEVELS), where=occupied > 0)[level] * (kept > 0)
    if spread.sum() == 0 or reference.sum() == 0:
        return float("inf")
    p, q = reference / reference.sum(), spread / spread.sum()
    # Where P has mass and Q none the divergence is infinite; a tiny floor ranks such candidates last instead.
    mass = p > 0
    return float(np.sum(p[mass] * np.log(p[mass] / np.maximum(q[mass], 1e-12))))
