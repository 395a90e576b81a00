"""How good answers are: against labels where there are some, against the baseline always."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import DataError
from flyweight.compressor.evaluate.churn import Churn
from flyweight.compressor.evaluate.intervals import Interval
from flyweight.compressor.evaluate.labels import Task
from flyweight.compressor.evaluate.mcnemar import McNemar
from flyweight.compressor.evaluate.per_class import ClassFigures

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a model does its task; `value` is better when larger, and 1 is perfect.

    What follows `figures` is None or empty where it cannot be told: intervals and tests need one predicted
    class a sample, since the tokens of one sentence are not independent; McNemar's test and calibration need
    labels.

    Attributes:
        metric: the figure that decides: accuracy, r2 or agreement.
        value: that figure.
        baseline_value: the same for the baseline.
        samples: it was computed on.
        figures: all figures by name, `agreement` among them; they go into the manifest.
        interval: 95 % interval of `value`.
        baseline_interval: the same for the baseline.
        difference: 95 % interval of what was gained against the baseline on the same samples.
        mcnemar: whether the difference is more than chance.
        churn: predictions that changed, and that changed from right to wrong or back.
        ece: expected calibration error, 0 is perfect.
        baseline_ece: the same for the baseline.
        ece_of: what it was computed from: "logits" (through softmax) or "probabilities".
        per_class: precision, recall and F1 of every class.
    """

    metric: str
    value: float
    baseline_value: float
    samples: int
    figures: Mapping[str, float] = field(default_factory=dict)
    interval: Interval | None = None
    baseline_interval: Interval | None = None
    difference: Interval | None = None
    mcnemar: McNemar | None = None
    churn: Churn | None = None
    ece: float | None = None
    baseline_ece: float | None = None
    ece_of: str = ""
    per_class: tuple[ClassFigures, ...] = ()

    @property
    def delta(self) -> float:
        """What was gained (positive) or lost (negative) against the baseline."""
        return self.value - self.baseline_value


def score(task: Task, labels: Array, predictions: Array) -> dict[str, float]:
    """Return the figures of predictions against labels, first axis = samples in both.

    Classes: accuracy, and precision, recall and F1 as the unweighted mean over classes ("macro"), where a
    class that is never predicted has precision 0. Numbers: the coefficient of determination
    R2 = 1 - sum (y - p)^2 / sum (y - mean y)^2 over all elements.
    """
    if task.is_regression:
        return {"r2": r_squared(labels.reshape(len(labels), -1), predictions)}
    from sklearn.metrics import accuracy_score, precision_recall_fscore_support

    expected, predicted = labels.reshape(-1), predictions.reshape(-1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        expected,
        predicted,
        average="macro",
        zero_division=0,  # pyright: ignore[reportArgumentType]  # its default is "warn", and numbers are allowed
    )
    return {
        "accuracy": float(accuracy_score(expected, predicted)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def r_squared(expected: Array, predicted: Array) -> float:
    """Return R2; where the expected values do not vary, 1 if they are all met and 0 otherwise.

    Raises:
        DataError: a value is not finite, or too large to be squared.
    """
    truth, guess = expected.astype(np.float64), predicted.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        residual = float(np.square(truth - guess).sum())
        total = float(np.square(truth - truth.mean()).sum())
    if not (np.isfinite(residual) and np.isfinite(total)):
        raise DataError(
            "R2 cannot be computed: an answer or a label is not finite, or too large to be squared; "
            "give data on which the model answers with finite numbers."
        )
    if total == 0:
        return 1.0 if residual == 0 else 0.0
    return 1 - residual / total


def metric_of(figures: Mapping[str, float]) -> str:
    """Return the name of the figure that decides."""
    return next((name for name in ("accuracy", "r2") if name in figures), "agreement")
