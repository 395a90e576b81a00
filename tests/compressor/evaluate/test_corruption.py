"""Disturbing inputs: each corruption against numbers, a slower form and its limit."""

import numpy as np
import pytest

from flyweight.compressor.evaluate.corruption import (
    Corruption,
    blur,
    contrast,
    corruptions_for,
    noise,
    shift,
)
from flyweight.compressor.evaluate.images import ImageAxes, image_axes

NCHW = ImageAxes(2, 3)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((4, 3, 16, 16)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "dtype", "axes"),
    [
        ((2, 3, 16, 16), np.float32, ImageAxes(2, 3)),
        ((2, 16, 20, 1), np.float32, ImageAxes(1, 2)),
        ((2, 3, 4, 4), np.float32, None),
        ((2, 64, 16, 16), np.float32, None),
        ((2, 3, 16, 16), np.uint8, None),
        ((2, 16, 16), np.float32, None),
    ],
)
def test_images_are_floats_with_few_channels(shape, dtype, axes) -> None:
    assert image_axes(np.zeros(shape, dtype=dtype)) == axes


def test_images_get_all_corruptions_other_floats_noise_and_integers_none(images) -> None:
    assert len(corruptions_for({"x": images})) == 12
    assert {one.name for one in corruptions_for({"x": np.zeros((2, 5))})} == {"noise"}
    assert corruptions_for({"x": np.zeros((2, 5), dtype=np.int64)}) == ()


def test_noise_is_relative_to_the_spread_and_stays_in_the_range(images) -> None:
    wide = np.random.default_rng(1).standard_normal((400, 50))
    found = noise(wide, 2, np.random.default_rng(0)) - wide
    assert found[np.abs(wide) < 1].std() == pytest.approx(0.32, rel=0.03)
    noisy = noise(images, 3, np.random.default_rng(0))
    assert images.min() <= noisy.min() <= noisy.max() <= images.max()
    assert noisy.dtype == np.float32


def test_masks_of_infinity_stay() -> None:
    mask = np.array([[0.0, -np.inf], [1.0, 2.0]])
    assert noise(mask, 3, np.random.default_rng(0))[0, 1] == -np.inf
    nothing = np.full((2, 2), -np.inf)
    assert (noise(nothing, 1, np.random.default_rng(0)) == nothing).all()


def test_blur_weighs_neighbours_by_a_gaussian() -> None:
    """A single pixel of 16 x 16, with a deviation of half a pixel: e^0, e^-2, e^-8 before they are made 1."""
    point = np.zeros((1, 1, 16, 16))
    point[0, 0, 8, 8] = 1
    weights = np.exp(-2.0 * np.square(np.arange(-2, 3)))
    weights /= weights.sum()
    assert np.allclose(blur(point, 3, NCHW)[0, 0, 6:11, 6:11], np.outer(weights, weights))


def test_blur_leaves_a_flat_image() -> None:
    flat = np.full((1, 1, 32, 32), 0.7)
    assert np.allclose(blur(flat, 3, NCHW), flat)


def test_contrast_shrinks_the_spread_and_keeps_the_mean(images) -> None:
    low = contrast(images, 2, NCHW)
    assert low.std(axis=(2, 3)) == pytest.approx(0.4 * images.std(axis=(2, 3)), rel=1e-4)
    assert low.mean(axis=(2, 3)) == pytest.approx(images.mean(axis=(2, 3)), rel=1e-5)


def test_a_shift_moves_and_repeats_the_edge(images) -> None:
    """An eighth of 16 pixels is two."""
    moved = shift(images, 3, NCHW)
    assert np.array_equal(moved[:, :, 2:, 2:], images[:, :, :-2, :-2])
    assert np.array_equal(moved[:, :, 0, 2:], images[:, :, 0, :-2])


def test_channels_last_is_disturbed_alike(images) -> None:
    last = images.transpose(0, 2, 3, 1)
    for name in ("blur", "contrast", "shift"):
        one = Corruption(name, 2)
        expected = one.apply({"x": images}, 0)["x"].transpose(0, 2, 3, 1)
        assert np.allclose(one.apply({"x": last}, 0)["x"], expected, atol=1e-6)


def test_the_same_seed_gives_the_same_noise_and_integers_stay(images) -> None:
    inputs = {"x": images, "tokens": np.arange(8).reshape(4, 2)}
    first, again = (Corruption("noise", 1).apply(inputs, 7) for _ in range(2))
    assert np.array_equal(first["x"], again["x"])
    assert not np.array_equal(first["x"], Corruption("noise", 1).apply(inputs, 8)["x"])
    assert first["tokens"] is inputs["tokens"]
