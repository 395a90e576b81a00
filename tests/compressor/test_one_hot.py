"""Labels as rows of zeros with a single one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import DataError
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.one_hot import with_classes
from flyweight.compressor.options import Options
from flyweight.compressor.passes.quantize import Fp16Storage

CLASSES = np.array([0, 2, 1, 2])
QUICK = Options(seconds_per_point=0.02, evaluation=EvaluationSettings.quick(), explain=False)


def labelled(labels: np.ndarray) -> DataSet:
    return DataSet({"x": np.zeros((len(labels), 2), np.float32)}, labels)


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.float32, np.float64, np.bool_])
def test_rows_of_the_scores_shape_are_classes(kind: type) -> None:
    data = labelled(np.eye(3)[CLASSES].astype(kind))
    found = with_classes(data, lambda: [(8,), (3,)])
    assert found.labels is not None
    assert found.labels.tolist() == CLASSES.tolist()
    assert found.labels.dtype == np.int64
    assert found.digest == data.digest


def test_masks_have_their_classes_first_or_last() -> None:
    mask = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
    last = np.eye(3)[mask]
    first = np.moveaxis(last, -1, 1)
    for labels in (first, last):
        found = with_classes(labelled(labels), lambda labels=labels: [labels.shape[1:]])
        assert found.labels is not None
        assert np.array_equal(found.labels, mask)


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        (np.array([0, 1, 2, 1]), [(3,)]),
        (np.array([[1, 0, 1], [0, 1, 0]]), [(3,)]),  # several classes at once
        (np.array([[0.9, 0.1], [0.2, 0.8]]), [(2,)]),  # probabilities
        (np.array([[1.0], [1.0]]), [(1,)]),  # one value
        (np.eye(3)[CLASSES], [(4,)]),  # no output of this shape
        (np.eye(3, dtype=np.int64)[CLASSES], [(3,), (3, 7)]),  # a class for each of three tokens
        (np.ones((2, 2, 2)) * np.eye(2), [(2, 2)]),  # along either axis
    ],
    ids=["classes", "several", "probabilities", "one value", "other shape", "tokens", "either axis"],
)
def test_what_may_mean_something_else_stays_as_it_is(labels: np.ndarray, scores: list) -> None:
    data = labelled(labels)
    assert with_classes(data, lambda: scores) is data


def test_the_model_is_not_asked_where_nothing_looks_one_hot() -> None:
    def never() -> list[tuple[int, ...]]:
        raise AssertionError

    for data in (labelled(CLASSES), labelled(np.ones((4, 3))), DataSet({"x": np.zeros(4)})):
        assert with_classes(data, never) is data


@given(st.lists(st.integers(0, 4), min_size=1, max_size=20))
def test_classes_come_back_from_their_rows(classes: list[int]) -> None:
    found = with_classes(labelled(np.eye(5)[classes]), lambda: [(5,)])
    assert found.labels is not None
    assert found.labels.tolist() == classes


@pytest.mark.usefixtures("no_memory_processes")
@pytest.mark.parametrize("kind", [np.int64, np.float32])
def test_a_run_judges_them_by_accuracy_and_says_so(kind: type, digits, tmp_path) -> None:
    path, data = digits
    assert data.labels is not None
    given = DataSet(data.inputs, np.eye(10, dtype=kind)[data.labels])
    made = [
        compress(path, Fp16Storage(), data=d, repository=tmp_path / str(place), name="m", options=QUICK)
        for place, d in enumerate((data, given))
    ]
    plain, rows = (report.baseline.evaluation for report in made)
    assert plain is not None
    assert rows is not None
    assert rows.quality.metric == "accuracy"
    assert rows.quality.value == plain.quality.value
    assert any("one-hot" in note for note in made[1].baseline.notes)
    assert not any("one-hot" in note for note in made[0].baseline.notes)


def test_rows_of_one_class_are_refused_like_labels_of_one_class(digits, tmp_path) -> None:
    path, data = digits
    one = DataSet(data.inputs, np.eye(10)[np.zeros(data.samples, int)])
    with pytest.raises(DataError, match="All 600 labels are 0"):
        compress(path, data=one, repository=tmp_path / "r", name="m", options=QUICK)
    assert not (tmp_path / "r").exists()


@pytest.mark.torch
@pytest.mark.usefixtures("no_memory_processes")
def test_a_module_is_trained_and_judged_by_classes(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from flyweight.compressor.passes.distill.soft_labels import FineTune
    from flyweight.compressor.training import TrainingSettings

    random = np.random.default_rng(0)
    pixels, classes = random.standard_normal((80, 6)).astype(np.float32), random.integers(0, 3, 80)
    torch.manual_seed(0)
    report = compress(
        torch.nn.Linear(6, 3),
        FineTune(TrainingSettings(1)),
        data={"x": pixels, "label": np.eye(3, dtype=np.float32)[classes]},
        repository=tmp_path / "r",
        name="m",
        options=QUICK,
    )
    assert report.baseline.evaluation is not None
    assert report.baseline.evaluation.quality.metric == "accuracy"
    assert report.variant("compressed").evaluation is not None, report.variant("compressed").verdict.reason
