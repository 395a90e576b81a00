"""What predicted classes tell: churn, figures for each class, calibration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from flyweight.compressor.evaluate.calibration_error import (
    CalibrationError,
    Scale,
    confidences,
    scale_of,
)
from flyweight.compressor.evaluate.churn import churn
from flyweight.compressor.evaluate.labels import Reading, Task
from flyweight.compressor.evaluate.per_class import ClassFigures, per_class

SCORES = Task("y", Reading.CLASS_SCORES)
LOGITS = np.array([[2.0, 0.0], [0.0, np.log(3)]])


def test_churn_counts_what_changed_and_what_flipped() -> None:
    """Truth 0 0 1 1 2: one wrong answer becomes right, one right becomes wrong, one wrong another wrong."""
    labels = np.array([0, 0, 1, 1, 2])
    before, after = np.array([0, 1, 1, 1, 0]), np.array([0, 0, 2, 1, 1])
    found = churn(before, after, labels)
    assert (found.changed, found.flipped, found.better, found.worse) == (0.6, 0.4, 1, 1)
    assert churn(before, before, labels).changed == 0
    assert churn(before, after).flipped is None


def test_figures_of_a_class_are_as_computed_by_hand() -> None:
    """Class 1 is found twice of three times, and once claimed wrongly."""
    labels = np.array([0, 0, 1, 1, 1])
    figures = per_class(labels, np.array([0, 1, 1, 1, 0]), np.array([0, 0, 1, 1, 1]))
    assert figures[1] == ClassFigures(
        1, pytest.approx(2 / 3), pytest.approx(2 / 3), pytest.approx(2 / 3), 3, 1.0
    )
    assert [found.support for found in figures] == [2, 3]


@given(seed=st.integers(0, 20), classes=st.integers(2, 6))
def test_figures_of_classes_are_scikit_learns(seed: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    labels, ours, theirs = random.integers(0, classes, (3, 40))
    found = per_class(labels, ours, theirs)
    expected = precision_recall_fscore_support(
        labels, ours, labels=[figures.label for figures in found], zero_division=0
    )
    actual = [(f.precision, f.recall, f.f1, f.support) for f in found]
    assert np.allclose(actual, np.array(expected).T)


def test_a_class_that_only_the_baseline_predicts_does_not_matter() -> None:
    figures = per_class(np.array([0, 1]), np.array([0, 1]), np.array([5, 1]))
    assert [(found.label, found.baseline_recall) for found in figures] == [(0, 0.0), (1, 1.0)]


def test_logits_go_through_softmax_and_probabilities_do_not() -> None:
    probabilities = np.array([[0.25, 0.75], [0.9, 0.1]])
    assert scale_of(SCORES, probabilities) is Scale.PROBABILITIES
    assert scale_of(SCORES, LOGITS) is Scale.LOGITS
    assert scale_of(SCORES, np.log(probabilities)) is Scale.LOGITS
    expected = [0.75, 0.9]
    assert confidences(SCORES, Scale.PROBABILITIES, probabilities) == pytest.approx(expected)
    assert confidences(SCORES, Scale.LOGITS, np.log(probabilities)) == pytest.approx(expected)
    assert confidences(SCORES, Scale.LOGITS, LOGITS)[1] == pytest.approx(0.75)


def test_one_score_is_a_probability_or_goes_through_the_logistic_function() -> None:
    task = Task("y", Reading.TWO_CLASSES)
    assert scale_of(task, np.array([[0.2], [0.9]])) is Scale.PROBABILITIES
    assert confidences(task, Scale.PROBABILITIES, np.array([[0.2]]))[0, 0] == pytest.approx(0.8)
    assert scale_of(task, np.array([[-3.0]])) is Scale.LOGITS
    assert confidences(task, Scale.LOGITS, np.array([[-np.log(3)]]))[0, 0] == pytest.approx(0.75)


def test_huge_logits_do_not_overflow() -> None:
    assert confidences(SCORES, Scale.LOGITS, np.array([[1e30, 0.0]]))[0] == 1
    assert confidences(Task("y", Reading.TWO_CLASSES), Scale.LOGITS, np.array([-1e30]))[0] == 1


def test_the_calibration_error_is_as_computed_by_hand() -> None:
    """Four times 90 % sure and three times right, six times 60 % sure and three times: (4*.15 + 6*.1)/10."""
    error = CalibrationError()
    error.add(np.full(4, 0.9), np.array([1, 1, 1, 0]))
    error.add(np.full(6, 0.6), np.array([1, 1, 1, 0, 0, 0]))
    assert error.value == pytest.approx(0.12)


def test_a_model_as_right_as_it_is_sure_has_no_error() -> None:
    error = CalibrationError()
    assert error.value == 0
    error.add(np.array([1.0, 1.0]), np.array([True, True]))
    assert error.value == 0


@given(seed=st.integers(0, 20), parts=st.integers(1, 5))
def test_the_error_of_parts_is_that_of_the_whole(seed: int, parts: int) -> None:
    random = np.random.default_rng(seed)
    sure, right = random.random(60), random.random(60) < 0.7
    whole, pieces = CalibrationError(), CalibrationError()
    whole.add(sure, right)
    for one, other in zip(np.array_split(sure, parts), np.array_split(right, parts), strict=True):
        pieces.add(one, other)
    assert pieces.value == pytest.approx(whole.value)
