"""Summaries of what came back: pure functions, checked by hand-made answers."""

import numpy as np
import pytest

from flyweight.client import Prediction
from flyweight.client.cli.answers import (
    Answer,
    Result,
    classes,
    join_outputs,
    judge,
    summarize,
    variant_of_row,
)


def answer(variant: str, rows: int, milliseconds: float, role: str = "candidate") -> Answer:
    outputs = {"y": np.zeros((rows, 2), dtype=np.float32)}
    return Answer(Prediction(outputs, "m", variant, role, "split", "", {}), rows, milliseconds / 1e3)


def test_rows_remember_who_answered_them() -> None:
    assert variant_of_row([answer("a", 2, 1), answer("b", 1, 1)]).tolist() == ["a", "a", "b"]


def test_percentiles_are_of_requests_and_interpolated() -> None:
    answers = [answer("a", 5, milliseconds) for milliseconds in range(1, 102)]
    line = summarize(Result("m", "u", answers, {}, None, 1))[0]
    assert (line.rows, line.requests) == (505, 101)
    assert line.p50_ms == pytest.approx(51)
    assert line.p99_ms == pytest.approx(100)


def test_each_variant_has_a_line_and_all_have_one_together() -> None:
    outputs = {"y": np.array([[1, 0], [1, 0], [0, 1], [0, 1]], dtype=np.float32)}
    answers = [answer("b", 3, 1), answer("a", 1, 3, "baseline")]
    lines = summarize(Result("m", "u", answers, outputs, np.array([0, 1, 1, 1]), 1))
    assert [(s.variant, s.role, s.rows) for s in lines] == [
        ("b", "candidate", 3),
        ("a", "baseline", 1),
        ("all", "", 4),
    ]
    assert [s.quality for s in lines] == [pytest.approx(2 / 3), 1.0, 0.75]


def test_the_class_is_the_largest_score_of_the_first_output_that_has_scores() -> None:
    outputs = {
        "ids": np.array([[7, 9]]),
        "embedding": np.zeros((1, 2, 2), dtype=np.float32),
        "single": np.zeros((1, 1), dtype=np.float32),
        "logits": np.array([[0, 5, 1]], dtype=np.float32),
    }
    found = classes(outputs)
    assert found is not None
    assert (found[0].tolist(), found[1].tolist()) == ([1], [5])
    assert classes({"ids": outputs["ids"], "single": outputs["single"]}) is None


def test_labels_of_shape_rows_by_one_are_classes_too() -> None:
    judged = judge({"y": np.eye(2, dtype=np.float32)}, np.array([[0], [0]]))
    assert judged is not None
    assert (judged[0], judged[1].tolist()) == ("accuracy", [1, 0])


def test_floating_point_labels_are_compared_by_mean_absolute_error() -> None:
    judged = judge(
        {"y": np.array([[1, 2], [3, 5]], dtype=np.float32)}, np.array([[1, 2], [3, 4]], dtype=np.float64)
    )
    assert judged is not None
    assert (judged[0], judged[1].tolist()) == ("mean_absolute_error", [0, 0.5])


@pytest.mark.parametrize(
    "labels", [None, np.zeros((2, 3), dtype=int), np.zeros((2, 7)), np.array(["a", "b"])]
)
def test_nothing_is_judged_where_nothing_can_be_compared(labels: object) -> None:
    assert judge({"y": np.eye(2, dtype=np.float32)}, labels) is None  # type: ignore[arg-type]


def test_answers_without_rows_are_stacked() -> None:
    one = Answer(Prediction({"z": np.float32([1, 2])}, "m", "1", "", "", "", {}), 1, 0.1)
    assert join_outputs([one, one, one], have_rows=False)["z"].shape == (3, 2)
    assert join_outputs([one, one, one], have_rows=True)["z"].shape == (6,)
