import numpy as np
import pytest

from demo import data_digits
from demo.task import IMAGE


def test_sets_are_disjoint_and_hold_all_digits() -> None:
    training, evaluation = data_digits.load(seed=0)
    assert training.samples + evaluation.samples == 1797
    assert training.labels is not None
    assert evaluation.labels is not None
    assert set(training.labels) == set(evaluation.labels) == set(range(10))
    seen = {image.tobytes() for image in training.inputs[IMAGE]}
    shared = sum(image.tobytes() in seen for image in evaluation.inputs[IMAGE])
    assert shared == 0


def test_same_seed_gives_same_split() -> None:
    assert data_digits.load(3)[1].digest == data_digits.load(3)[1].digest
    assert data_digits.load(3)[1].digest != data_digits.load(4)[1].digest


def test_images_fit_the_network() -> None:
    images = data_digits.load(0)[1].inputs[IMAGE]
    assert images.shape[1:] == (1, 32, 32)
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0.0, 1.0)


def test_enlarging_keeps_a_flat_image_flat() -> None:
    assert data_digits.enlarged(np.full((1, 8, 8), 0.25)) == pytest.approx(0.25)


def test_enlarging_equals_interpolation_point_by_point() -> None:
    image = np.arange(16.0).reshape(1, 4, 4)
    large = data_digits.enlarged(image, 8)[0, 0]
    # Pixel (1, 1) of the large image lies a quarter of a small pixel past the centre of (0, 0).
    assert large[1, 1] == pytest.approx(0.75 * 0.75 * 0 + 0.75 * 0.25 * 1 + 0.25 * 0.75 * 4 + 0.25 * 0.25 * 5)
