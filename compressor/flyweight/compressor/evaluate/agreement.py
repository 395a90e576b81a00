"""How far a variant gives the baseline's answers, between 0 (never) and 1 (always).

What "the same answer" means depends on the output:

- scores of classes (float, one row of at least two numbers a sample): the largest is in the same place; the
  agreement is the share of samples where it is (top-1 agreement).
- other numbers, vectors of length one among them (embeddings): the share of the baseline's energy that the
  variant reproduces, 1 - sum (v - b)^2 / sum b^2, not below 0. In decibels of signal to quantization noise
  that is 1 - 10^(-SQNR / 10): 0.99 is 20 dB. For vectors of length one it is 2 cos - 1.
- integers, truth values, strings: the share of equal elements.

A model's agreement is that of its worst output.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import ModelError

Array = NDArray[Any]
Kind = Literal["auto", "top1", "values"]

# A vector whose length differs from 1 by less was normalised.
_UNIT_TOLERANCE: Final = 1e-3


class Agreement(Protocol):
    """A running comparison of one output."""

    def add(self, baseline: Array, variant: Array) -> None:
        """Take in the answers to the same samples, first axis = samples."""

    @property
    def value(self) -> float:
        """The agreement so far."""
        ...


@dataclass(slots=True)
class TopOne:
    """The share of samples whose largest score is in the same place."""

    same: int = 0
    samples: int = 0

    def add(self, baseline: Array, variant: Array) -> None:
        """Take in scores (samples, classes)."""
        self.same += int((baseline.argmax(axis=-1) == variant.argmax(axis=-1)).sum())
        self.samples += len(baseline)

    @property
    def value(self) -> float:
        """The agreement so far."""
        return self.same / self.samples if self.samples else 1.0


@dataclass(slots=True)
class Energy:
    """The share of the baseline's energy that is reproduced; what is not finite in it is left out."""

    error: float = 0.0
    energy: float = 0.0

    def add(self, baseline: Array, variant: Array) -> None:
        """Take in numbers of any shape."""
        finite = np.isfinite(baseline)
        reference, answer = baseline[finite].astype(np.float64), variant[finite].astype(np.float64)
        self.error += float(np.square(answer - reference).sum())
        self.energy += float(np.square(reference).sum())

    @property
    def value(self) -> float:
        """The agreement so far."""
        if self.energy == 0:
            return 1.0 if self.error == 0 else 0.0
        return max(0.0, 1 - self.error / self.energy)


@dataclass(slots=True)
class Equality:
    """The share of equal elements."""

    same: int = 0
    elements: int = 0

    def add(self, baseline: Array, variant: Array) -> None:
        """Take in elements of any shape."""
        self.same += int((baseline == variant).sum())
        self.elements += baseline.size

    @property
    def value(self) -> float:
        """The agreement so far."""
        return self.same / self.elements if self.elements else 1.0


@dataclass(slots=True)
class Comparison:
    """A running comparison of all outputs of a model."""

    kind: Kind = "auto"
    outputs: dict[str, Agreement] = field(default_factory=dict)

    def add(self, baseline: Mapping[str, Array], variant: Mapping[str, Array]) -> None:
        """Take in both models' answers to the same samples.

        Raises:
            ModelError: an output of the variant has another shape, or is not finite where the baseline's is.
        """
        for name, expected in baseline.items():
            _check_sound(name, expected, variant[name])
            if name not in self.outputs:
                self.outputs[name] = agreement_for(expected, self.kind)
            self.outputs[name].add(expected, variant[name])

    @property
    def value(self) -> float:
        """The agreement of the worst output."""
        return min((agreement.value for agreement in self.outputs.values()), default=1.0)


def agreement_for(sample: Array, kind: Kind = "auto") -> Agreement:
    """Return the comparison that suits an output of which `sample` is a batch."""
    if not np.issubdtype(sample.dtype, np.floating):
        return Equality()
    could_be_scores = sample.ndim == 2 and sample.shape[1] >= 2
    if could_be_scores and (kind == "top1" or (kind == "auto" and not is_embedding(sample))):
        return TopOne()
    return Energy()


def is_embedding(rows: Array) -> bool:
    """Tell whether all rows are vectors of length one that are not distributions."""
    values = rows.astype(np.float64)
    unit = np.abs(np.linalg.norm(values, axis=1) - 1) < _UNIT_TOLERANCE
    distribution = (values >= 0).all(axis=1) & (np.abs(values.sum(axis=1) - 1) < _UNIT_TOLERANCE)
    return bool(unit.all() and not distribution.all())


def _check_sound(name: str, expected: Array, actual: Array) -> None:
    if expected.shape != actual.shape:
        raise ModelError(
            f"Its output {name!r} has shape {list(actual.shape)} instead of {list(expected.shape)}."
        )
    if np.issubdtype(expected.dtype, np.floating):
        broken = np.isfinite(expected) & ~np.isfinite(actual)
        if broken.any():
            raise ModelError(
                f"Its output {name!r} holds {int(broken.sum())} values that are not finite where the "
                "baseline's are."
            )
