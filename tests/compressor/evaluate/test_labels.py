"""Finding what predicts the labels, and scoring it."""

import numpy as np
import pytest

from flyweight.compressor.errors import DataError
from flyweight.compressor.evaluate.labels import Reading, Task, check_regression, find_task
from flyweight.compressor.evaluate.quality import metric_of, r_squared, score

CLASSES = np.array([0, 1, 2, 1])


def test_the_output_with_scores_predicts_classes() -> None:
    scores = np.eye(3, dtype=np.float32)[[0, 1, 1, 1]]
    task = find_task(CLASSES, {"embedding": np.zeros((4, 2, 2), dtype=np.float32), "scores": scores})
    assert (task.output, task.reading) == ("scores", Reading.CLASS_SCORES)
    assert task.predict({"scores": scores}).tolist() == [0, 1, 1, 1]


def test_labels_in_a_column_are_labels_all_the_same() -> None:
    task = find_task(CLASSES[:, None], {"scores": np.zeros((4, 3), dtype=np.float32)})
    assert task.reading is Reading.CLASS_SCORES


def test_integers_predict_classes_directly() -> None:
    task = find_task(CLASSES, {"y": np.array([0, 1, 2, 2])})
    assert score(task, CLASSES, task.predict({"y": np.array([0, 1, 2, 2])}))["accuracy"] == 0.75


@pytest.mark.parametrize(
    ("values", "threshold"), [([0.2, 0.6, 0.9, 0.4], 0.5), ([-2.0, 0.3, 0.9, -0.1], 0.0)]
)
def test_one_score_divides_two_classes(values: list[float], threshold: float) -> None:
    answers = {"y": np.array(values, dtype=np.float32)[:, None]}
    task = find_task(np.array([0, 1, 1, 0]), answers)
    assert (task.reading, task.threshold) == (Reading.TWO_CLASSES, threshold)
    assert task.predict(answers).ravel().tolist() == [0, 1, 1, 0]


def test_a_label_for_each_token_and_each_pixel() -> None:
    tokens = find_task(np.zeros((2, 5), dtype=np.int64), {"y": np.zeros((2, 5, 7), dtype=np.float32)})
    pixels = find_task(np.zeros((2, 4, 6), dtype=np.int64), {"y": np.zeros((2, 3, 4, 6), dtype=np.float32)})
    assert (tokens.axis, pixels.axis) == (-1, 1)
    assert pixels.predict({"y": np.zeros((2, 3, 4, 6))}).shape == (2, 4, 6)


def test_floats_are_values_to_regress() -> None:
    task = find_task(np.zeros((4, 2)), {"y": np.zeros((4, 2), dtype=np.float32)})
    assert task.is_regression


def test_whole_numbers_for_one_value_are_regressed_too() -> None:
    assert find_task(np.array([20, 35, 50, 41]), {"age": np.zeros((4, 1), dtype=np.float32)}).is_regression


@pytest.mark.parametrize(
    ("labels", "output", "sentence"),
    [
        (np.array([0, 3, 1, 1]), None, r"Label 3 is no class of output 'y', which has 3 \(0 to 2\)"),
        (np.array([0, -1, 1, 1]), None, "Label -1 is no class"),
        (np.zeros((4, 5)), None, r"float64\[5\] a sample, which fits no output \(y \[3\]\)"),
        (CLASSES, "z", "no output 'z'; its outputs are y"),
    ],
)
def test_labels_that_fit_nothing_are_refused(labels: np.ndarray, output: str | None, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        find_task(labels, {"y": np.zeros((4, 3), dtype=np.float32)}, output)


@pytest.mark.parametrize(
    ("labels", "advice"),
    [
        (np.array([[0.0, 1.0], [1.0, 1.0]]), "all 0 and 1, so if they are classes, save them as integers"),
        (np.array([[0.25, 0.75], [0.5, 0.5]]), r"save label.argmax\(axis=1\)"),
        (np.array([[3.0], [7.0]]), "whole numbers.*with --output"),
        (np.array([[3.1], [7.2]]), "in the units in which the model answers"),
    ],
)
def test_values_that_the_model_does_not_answer_are_refused_with_what_they_look_like(
    labels: np.ndarray, advice: str
) -> None:
    task = Task("y", Reading.VALUES)
    with pytest.raises(DataError, match=rf"output 'y', .*worse than their mean would \(R2 -3\).*{advice}"):
        check_regression(task, labels, -3.0)
    check_regression(task, labels, 0.0)
    check_regression(task, labels, None)


def test_figures_are_as_computed_by_hand() -> None:
    """Truth 0 0 1 1, guess 0 1 1 1: precision (1 + 2/3)/2, recall (1/2 + 1)/2, F1 (2/3 + 4/5)/2."""
    task = find_task(np.array([0, 0, 1, 1]), {"y": np.zeros((4, 2), dtype=np.float32)})
    figures = score(task, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]))
    assert figures == pytest.approx(
        {"accuracy": 0.75, "precision": 5 / 6, "recall": 0.75, "f1": (2 / 3 + 4 / 5) / 2}
    )


def test_r_squared_is_one_for_truth_zero_for_the_mean_and_below_for_worse() -> None:
    truth = np.array([[1.0], [2.0], [3.0]])
    assert r_squared(truth, truth) == 1
    assert r_squared(truth, np.full((3, 1), 2.0)) == 0
    assert r_squared(truth, truth[::-1]) == -3
    assert r_squared(np.ones((3, 1)), np.ones((3, 1))) == 1


def test_accuracy_decides_before_agreement() -> None:
    assert metric_of({"agreement": 1.0, "accuracy": 0.9}) == "accuracy"
    assert metric_of({"agreement": 1.0, "r2": 0.9}) == "r2"
    assert metric_of({"agreement": 1.0}) == "agreement"
