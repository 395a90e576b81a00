"""Histograms as plain numbers, made into Prometheus's when somebody asks."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.utils import floatToGoString


class Histogram:
    """How many values fell into each bucket, the last being for all that are larger, and their sum.

    Its owner's lock guards it.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Count a value; a bucket holds what is at most its bound."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def count(self) -> int:
        """Return how many values there were."""
        return sum(self.counts)

    def show(self, family: HistogramMetricFamily, labels: Iterable[str]) -> None:
        """Add a series with everything up to now."""
        show_buckets(family, labels, self._bounds, self.counts, self.sum)


def show_buckets(
    family: HistogramMetricFamily,
    labels: Iterable[str],
    bounds: Sequence[float],
    counts: Sequence[int],
    sum_of_values: float,
) -> None:
    """Add a series: how many values fell into each bucket, the last being for all that are larger."""
    total, buckets = 0, []
    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
        total += count
        label = floatToGoString(bound)  # type: ignore[no-untyped-call]  # annotated in part
        buckets.append((label, total))
    family.add_metric(list(labels), buckets, sum_of_values)
