"""What is left on disturbed inputs, with models that are functions."""

import numpy as np
import pytest

from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.labels import Reading, Task
from flyweight.compressor.evaluate.robustness import RobustnessMeter

RANDOM = np.random.default_rng(0)
FLAT = RANDOM.standard_normal((200, 6)).astype(np.float32)
IMAGES = RANDOM.standard_normal((20, 1, 8, 8)).astype(np.float32)
SCORES = Task("y", Reading.CLASS_SCORES)
NEVER = float("inf")


def linear(data: DataSet) -> dict[str, np.ndarray]:
    """The largest input wins: sound until noise is larger than the gaps."""
    return {"y": data.inputs["x"]}


def constant(data: DataSet) -> dict[str, np.ndarray]:
    """Says class 0, whatever it sees."""
    return {"y": np.tile(np.array([[1.0, 0, 0, 0, 0, 0]]), (data.samples, 1))}


LABELLED = DataSet({"x": FLAT}, FLAT.argmax(axis=1))


def test_a_variant_as_robust_as_its_baseline_keeps_all() -> None:
    found = RobustnessMeter(LABELLED, linear, SCORES).of(linear, NEVER)
    assert found is not None
    assert (found.measure, found.samples, found.worst) == ("accuracy", 200, 1.0)
    assert found.kept == {"noise": {1: 1.0, 2: 1.0, 3: 1.0}}
    assert found.quality["noise"][1] > found.quality["noise"][2] > found.quality["noise"][3] > 0.5


def test_what_is_kept_is_relative_to_the_baselines_accuracy_under_the_same() -> None:
    """A constant is right on the share of class 0, disturbed or not."""
    share = float(np.mean(LABELLED.labels == 0))
    meter = RobustnessMeter(LABELLED, linear, SCORES)
    baseline, found = meter.of(linear, NEVER), meter.of(constant, NEVER)
    assert baseline is not None
    assert found is not None
    for severity in (1, 2, 3):
        assert found.quality["noise"][severity] == pytest.approx(share)
        expected = share / baseline.quality["noise"][severity]
        assert found.kept["noise"][severity] == pytest.approx(expected)


def test_without_labels_answers_are_compared_with_the_clean_ones() -> None:
    found = RobustnessMeter(DataSet({"x": FLAT}), linear).of(linear, NEVER)
    assert found is not None
    assert found.measure == "agreement"
    assert found.quality["noise"][3] < 1


def test_the_baselines_figures_are_taken_once() -> None:
    asked = list[int]()

    def counted(data: DataSet) -> dict[str, np.ndarray]:
        asked.append(data.samples)
        return linear(data)

    meter = RobustnessMeter(LABELLED, counted, SCORES)
    meter.of(linear, NEVER)
    meter.of(linear, NEVER)
    assert len(asked) == 3


def test_where_the_baseline_has_nothing_left_nothing_is_kept() -> None:
    impossible = DataSet({"x": FLAT}, np.full(200, 5))
    nothing = RobustnessMeter(impossible, constant, SCORES).of(linear, NEVER)
    assert nothing is not None
    assert nothing.kept["noise"][1] is None
    assert nothing.worst is None


def test_what_there_was_no_time_for_is_said() -> None:
    moments = iter(range(100))
    meter = RobustnessMeter(DataSet({"x": IMAGES}), lambda data: {"y": data.inputs["x"].reshape(20, 64)})
    found = meter.of(lambda data: {"y": data.inputs["x"].reshape(20, 64)}, 5, clock=lambda: next(moments))
    assert found is not None
    assert found.note == "There was no time for 7 of 12 corruptions."
    assert set(found.kept) == {"noise", "blur", "contrast", "shift"}


def test_integers_are_not_disturbed() -> None:
    tokens = DataSet({"x": np.arange(12).reshape(4, 3)})
    assert RobustnessMeter(tokens, linear).of(linear, NEVER) is None
    assert RobustnessMeter(LABELLED, linear).of(linear, -1, clock=lambda: 0.0) is None
