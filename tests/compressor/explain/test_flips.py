"""Which answers changed, and their pictures."""

import base64

import numpy as np

from flyweight.compressor.data import DataSet
from flyweight.compressor.explain.flips import MOST_SAMPLES, find_flips, picture_of


def images(count: int, labels: np.ndarray | None = None) -> DataSet:
    return DataSet({"x": np.random.default_rng(0).random((count, 1, 8, 8)).astype(np.float32)}, labels)


def test_harmed_samples_come_first_and_moves_are_counted() -> None:
    before, after = np.array([0, 1, 2, 3, 0]), np.array([0, 2, 2, 1, 1])
    found = find_flips(before, after, images(5, np.array([0, 1, 2, 1, 0])))
    assert found is not None
    assert (found.count, found.harmed, found.mended) == (3, 2, 1)
    assert [flip.sample for flip in found.samples] == [1, 4, 3]
    assert [(flip.label, flip.baseline, flip.variant) for flip in found.samples] == [
        (1, 1, 2),
        (0, 0, 1),
        (1, 3, 1),
    ]
    assert set(found.moves) == {(1, 2, 1), (3, 1, 1), (0, 1, 1)}


def test_without_labels_nobody_is_harmed() -> None:
    found = find_flips(np.array([0, 1]), np.array([1, 1]), images(2))
    assert found is not None
    assert (found.count, found.harmed, found.samples[0].label) == (1, None, None)


def test_no_change_is_no_flip() -> None:
    found = find_flips(np.zeros(3, int), np.zeros(3, int), images(3))
    assert found is not None
    assert (found.count, found.samples, found.moves) == (0, (), ())


def test_no_more_pictures_than_a_reader_looks_at() -> None:
    found = find_flips(np.zeros(100, int), np.ones(100, int), images(100))
    assert found is not None
    assert (found.count, len(found.samples)) == (100, MOST_SAMPLES)


def test_several_classes_a_sample_are_not_compared() -> None:
    assert find_flips(np.zeros((3, 2), int), np.ones((3, 2), int), images(3)) is None


def test_a_picture_is_a_png_and_other_inputs_have_none() -> None:
    picture = picture_of(images(1).inputs, 0)
    assert base64.b64decode(picture.removeprefix("data:image/png;base64,")).startswith(b"\x89PNG")
    assert picture_of({"x": np.zeros((2, 64), dtype=np.float32)}, 0) == ""
