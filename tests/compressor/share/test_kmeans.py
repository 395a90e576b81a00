"""One-dimensional k-means: literal numbers, the plain algorithm, and what must hold of any codebook."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.passes.share.kmeans import find_centroids, nearest, share

floats = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=60)


def test_two_heaps_have_two_means() -> None:
    values = np.array([0.0, 1.0, 2.0, 10.0, 11.0, 12.0, 13.0])
    assert find_centroids(values, 2).tolist() == [1.0, 11.5]


def test_few_values_are_their_own_centroids() -> None:
    assert find_centroids(np.array([3.0, 1.0, 3.0]), 4).tolist() == [1.0, 3.0]


def test_a_single_centroid_is_the_mean() -> None:
    assert find_centroids(np.array([1.0, 2.0, 6.0]), 1) == pytest.approx([3.0])


def plainly(values: np.ndarray, count: int) -> np.ndarray:
    """Lloyd's algorithm as it is written down, over every value and every centroid."""
    centroids = np.linspace(values.min(), values.max(), count)
    for _ in range(200):
        places = np.abs(values[:, None] - centroids).argmin(axis=1)
        centroids = np.array(
            [values[places == c].mean() if (places == c).any() else centroids[c] for c in range(count)]
        )
    return centroids[np.unique(np.abs(values[:, None] - centroids).argmin(axis=1))]


@pytest.mark.parametrize("count", [2, 7, 31])
def test_sorted_sums_give_what_the_plain_algorithm_does(count: int) -> None:
    values = np.random.default_rng(count).uniform(size=2000)
    np.testing.assert_allclose(find_centroids(values, count), plainly(values, count), atol=1e-3)


def test_far_values_do_not_leave_clusters_empty() -> None:
    """Evenly spaced from -1000 to 1000, all but two of 16 centroids would have nobody."""
    values = np.concatenate([np.random.default_rng(0).normal(size=5000), [-1000.0, 1000.0]])
    centroids = find_centroids(values, 16)
    assert len(centroids) == 16
    error = values - centroids[nearest(values, centroids)]
    # The best 16 values for a normal distribution are off by 0.0115 of its variance (Max 1960, table 1).
    assert (error**2).mean() < 0.02


def test_centroids_are_the_means_of_their_clusters() -> None:
    values = np.random.default_rng(0).normal(size=5000)
    centroids = find_centroids(values, 16)
    places = nearest(values, centroids)
    means = [values[places == place].mean() for place in range(len(centroids))]
    np.testing.assert_allclose(centroids, means, atol=1e-4)


@given(floats, st.integers(1, 4))
def test_a_codebook_is_small_and_zeros_stay_zeros(values: list[float], bits: int) -> None:
    array = np.array(values, dtype=np.float32)
    array[::3] = 0.0
    (places,), book = share([array], bits)
    assert len(book) <= 2**bits
    assert (book[places[array == 0]] == 0).all()
    assert (np.diff(book) > 0).all()


@given(floats, st.integers(2, 4))
def test_sharing_what_is_shared_changes_nothing(values: list[float], bits: int) -> None:
    (places,), book = share([np.array(values, dtype=np.float32)], bits)
    once = book[places]
    (places,), book = share([once], bits)
    np.testing.assert_allclose(book[places], once, rtol=1e-12)


def test_weights_without_zeros_use_every_entry() -> None:
    (places,), book = share([np.arange(1.0, 9.0)], 3)
    assert book[places].tolist() == list(range(1, 9))


def test_an_array_of_zeros_has_the_entry_zero() -> None:
    (places,), book = share([np.zeros((3, 4))], 5)
    assert book.tolist() == [0.0]
    assert places.tolist() == [[0] * 4] * 3


def test_arrays_of_a_group_have_one_codebook() -> None:
    first, second = np.array([1.0, 5.0]), np.array([[1.2], [4.8]])
    places, book = share([first, second], 1)
    assert book.tolist() == pytest.approx([1.1, 4.9])
    assert [one.shape for one in places] == [(2,), (2, 1)]
