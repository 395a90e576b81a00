"""What came back for the rows of a file: by row, by variant, and how right it was. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from flyweight.client.results import Array, Prediction


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One request's answer: the prediction, its rows, and the seconds the caller waited."""

    prediction: Prediction
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Everything that came back.

    Attributes:
        model: the model's name.
        url: the server's address.
        answers: of every request, in the order of the rows; at least one.
        outputs: by name, first axis = rows.
        labels: what the rows are, first axis = rows; None when unknown.
        seconds: how long all requests took together.
    """

    model: str
    url: str
    answers: Sequence[Answer]
    outputs: Mapping[str, Array]
    labels: Array | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Summary:
    """A number of answers in one line; latencies in milliseconds, as the caller saw them.

    Attributes:
        variant: who answered; "all" for the sum of several.
        role: as the server said; empty for a sum.
        rows: rows answered.
        requests: requests answered.
        p50_ms: the median latency of a request.
        p99_ms: the latency that one in a hundred requests exceeds.
        quality: the mean over the rows of the metric that `judge` found; None without one.
    """

    variant: str
    role: str
    rows: int
    requests: int
    p50_ms: float
    p99_ms: float
    quality: float | None


def variant_of_row(answers: Sequence[Answer]) -> Array:
    """Return the name of the variant that answered each row."""
    names = np.array([answer.prediction.variant for answer in answers], dtype=np.str_)
    return np.repeat(names, [answer.rows for answer in answers])


def join_outputs(answers: Sequence[Answer], *, have_rows: bool) -> dict[str, Array]:
    """Return every output over all rows, first axis = rows.

    Args:
        answers: in the order of the rows.
        have_rows: whether the first axis of each answer counts rows; otherwise an answer is one row.

    Raises:
        ValueError: answers differ in shape, so that they make no one array.
    """
    join = np.concatenate if have_rows else np.stack
    names = answers[0].prediction.outputs
    return {name: join([answer.prediction.outputs[name] for answer in answers]) for name in names}


def classes(outputs: Mapping[str, Array]) -> tuple[Array, Array] | None:
    """Return the most likely class of every row and its score, where an output looks like class scores.

    That is the first floating-point output of shape [rows, classes] with two classes or more.
    """
    for output in outputs.values():
        if output.dtype.kind == "f" and output.ndim == 2 and output.shape[1] >= 2:
            return output.argmax(axis=1), output.max(axis=1)
    return None


def judge(outputs: Mapping[str, Array], labels: Array | None) -> tuple[str, Array] | None:
    """Return a metric's name and its value for every row; its mean is the quality.

    Integer labels are classes: "accuracy", 0 or 1 a row. Floating-point ones are values to regress:
    "mean_absolute_error", in the unit of the first output that has as many elements. None where there are no
    labels, or no output can be compared with them.
    """
    if labels is None:
        return None
    rows = len(labels)
    if labels.dtype.kind in "iu":
        found = classes(outputs)
        if found is None or labels.size != rows:
            return None
        return "accuracy", (found[0] == labels.reshape(rows)).astype(np.float64)
    for output in outputs.values():
        if output.size == labels.size and output.dtype.kind in "fiu":
            difference = output.reshape(rows, -1).astype(np.float64) - labels.reshape(rows, -1)
            return "mean_absolute_error", np.abs(difference).mean(axis=1)
    return None


def summarize(result: Result) -> list[Summary]:
    """Return one line for each variant, in the order of their first answers, and one over all of them."""
    judged = judge(result.outputs, result.labels)
    values = None if judged is None else judged[1]
    of_row = variant_of_row(result.answers)
    roles = {answer.prediction.variant: answer.prediction.role for answer in result.answers}
    lines = []
    for variant, role in roles.items():
        own = [answer for answer in result.answers if answer.prediction.variant == variant]
        lines.append(_summary(variant, role, own, None if values is None else values[of_row == variant]))
    return [*lines, _summary("all", "", result.answers, values)]


def _summary(variant: str, role: str, answers: Sequence[Answer], values: Array | None) -> Summary:
    p50, p99 = np.percentile([answer.seconds * 1e3 for answer in answers], [50, 99])
    return Summary(
        variant=variant,
        role=role,
        rows=sum(answer.rows for answer in answers),
        requests=len(answers),
        p50_ms=float(p50),
        p99_ms=float(p99),
        quality=None if values is None else float(values.mean()),
    )
