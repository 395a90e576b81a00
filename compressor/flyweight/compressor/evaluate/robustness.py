"""How much of a model's quality is left when its inputs are disturbed, against the baseline under the same.

kept = quality of the variant on disturbed inputs / quality of the baseline on the same. With class labels the
quality is accuracy; without, the agreement with what the baseline answers to the undisturbed inputs.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.agreement import Comparison, Kind
from flyweight.compressor.evaluate.corruption import Corruption, corruptions_for
from flyweight.compressor.evaluate.labels import Task

Array = NDArray[Any]
Answers = Mapping[str, Array]
Ask = Callable[[DataSet], Answers]
Clock = Callable[[], float]

# The 95 % interval of a share on 256 samples is at most 12 points wide: enough to see a model break, and an
# ImageNet network still answers them in seconds.
MOST_SAMPLES: Final = 256
# On fewer, one sample is worth more than three points.
FEWEST_SAMPLES: Final = 32


@dataclass(frozen=True, slots=True)
class Robustness:
    """What was left.

    Attributes:
        kept: by corruption and severity, variant over baseline; 1 is as robust as the baseline, and None
            where the baseline has nothing left.
        quality: the same keys, the variant's own figure.
        measure: accuracy or agreement.
        samples: they were measured on.
        note: what was left out, and why.
    """

    kept: Mapping[str, Mapping[int, float | None]]
    quality: Mapping[str, Mapping[int, float]]
    measure: str
    samples: int
    note: str = ""

    @property
    def worst(self) -> float | None:
        """The smallest share kept."""
        known = [
            kept for by_severity in self.kept.values() for kept in by_severity.values() if kept is not None
        ]
        return min(known, default=None)


@dataclass(slots=True)
class RobustnessMeter:
    """Measures variants against one baseline, whose figures it keeps; used from one thread.

    Attributes:
        data: the samples, at most as many as there is time for.
        ask_baseline: returns all outputs of the baseline for a data set.
        task: how classes are read and labelled; None compares answers.
        agreement: what the same answer means.
        seed: of the noise.
    """

    data: DataSet
    ask_baseline: Ask
    task: Task | None = None
    agreement: Kind = "auto"
    seed: int = 0
    _clean: Answers | None = None
    _baseline: dict[Corruption, float] = field(default_factory=dict)

    @property
    def measure(self) -> str:
        """What is compared."""
        labelled = self.data.labels is not None and self.task is not None and not self.task.is_regression
        return "accuracy" if labelled else "agreement"

    def of(self, ask: Ask, deadline: float, clock: Clock = time.monotonic) -> Robustness | None:
        """Measure a variant; None where no input can be disturbed, or there was no time for one corruption.

        Args:
            ask: returns all outputs of the variant for a data set.
            deadline: by `clock`; what is not measured by then is left out, and said so.
            clock: of the deadline.
        """
        planned = corruptions_for(self.data.inputs)
        kept, quality = dict[str, dict[int, float | None]](), dict[str, dict[int, float]]()
        # The hardest last: where time is short, all corruptions are there in their mildest form.
        done = 0
        for corruption in sorted(planned, key=lambda one: one.severity):
            if clock() >= deadline:
                break
            inputs = corruption.apply(self.data.inputs, self.seed)
            disturbed = DataSet(inputs, self.data.labels, digest="disturbed")
            if corruption not in self._baseline:
                self._baseline[corruption] = self._figure(self.ask_baseline(disturbed))
            before, after = self._baseline[corruption], self._figure(ask(disturbed))
            kept.setdefault(corruption.name, {})[corruption.severity] = after / before if before > 0 else None
            quality.setdefault(corruption.name, {})[corruption.severity] = after
            done += 1
        if not done:
            return None
        left = len(planned) - done
        note = f"There was no time for {left} of {len(planned)} corruptions." if left else ""
        return Robustness(kept, quality, self.measure, self.data.samples, note)

    def _figure(self, answers: Answers) -> float:
        if self.measure == "accuracy":
            assert self.task is not None
            assert self.data.labels is not None
            predicted = self.task.predict(answers).reshape(-1)
            return float(np.mean(predicted == self.data.labels.reshape(-1)))
        if self._clean is None:
            self._clean = self.ask_baseline(self.data)
        comparison = Comparison(self.agreement)
        comparison.add(self._clean, answers)
        return comparison.value
