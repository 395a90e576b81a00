"""The figures of a variant that a budget speaks of, in one flat record that a study can store."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flyweight.compressor.evaluate.evaluation import Evaluation


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of a variant; None where it was not measured.

    Attributes:
        size: bytes of its file.
        quality: figures by name (accuracy, f1, r2, agreement and so on), 1 is perfect.
        metric: which of them decides.
        latency: median seconds of a run at the smallest batch, at the baseline's pace.
        memory: bytes that loading and running it adds to a process.
        macs: multiply-accumulate operations for one sample.
        parameters: weights in the graph.
    """

    size: float
    quality: Mapping[str, float] = field(default_factory=dict)
    metric: str = "agreement"
    latency: float | None = None
    memory: float | None = None
    macs: float | None = None
    parameters: float | None = None

    def of(self, axis: str) -> float | None:
        """Return the figure on one of the budget's axes, by its name."""
        if axis in COSTS:
            value: float | None = getattr(self, axis)
            return value
        return self.quality.get(self.metric if axis == "quality" else axis)

    def document(self) -> dict[str, Any]:
        """Return the record in the types that JSON has."""
        return asdict(self)


COSTS = ("latency", "size", "memory", "macs", "parameters")
"""Axes on which less is better; on all others more is."""


def figures_of(found: "Evaluation") -> Figures:
    """Return what a budget speaks of, from everything that was measured."""
    quality = found.quality
    return Figures(
        size=found.file_bytes,
        quality={**quality.figures, quality.metric: quality.value},
        metric=quality.metric,
        latency=found.latency[0].p50_seconds,
        memory=found.pss_bytes,
        macs=found.macs,
        parameters=found.parameters,
    )
