"""The store of answers."""

import threading

import numpy as np
import pytest

from flyweight.server.caching import CacheKey, ResponseCache

KILOBYTE = 1024


def key(number: int) -> CacheKey:
    return CacheKey(number.to_bytes(4, "little"))


def outputs(number: int, size: int = 64) -> dict[str, np.ndarray]:
    return {"y": np.full(size, number, np.float32)}


def test_what_was_put_is_given_again() -> None:
    cache = ResponseCache(64 * KILOBYTE)
    assert cache.get(key(1)) is None
    assert cache.put(key(1), outputs(1))
    found = cache.get(key(1))
    assert found is not None
    np.testing.assert_array_equal(found["y"], outputs(1)["y"])
    statistics = cache.statistics()
    assert (statistics.hits, statistics.misses, statistics.entries) == (1, 1, 1)


def test_what_is_kept_is_a_copy_that_nobody_can_change() -> None:
    cache = ResponseCache(64 * KILOBYTE)
    batch = np.zeros((1000, 4), np.float32)
    cache.put(key(1), {"y": batch[3:4]})
    batch[:] = 7
    found = cache.get(key(1))
    assert found is not None
    assert not found["y"].any()
    assert found["y"].base is None
    with pytest.raises(ValueError, match="read-only"):
        found["y"][0] = 1


def test_the_least_recently_used_goes_first() -> None:
    # Each takes 512 for the entry, 256 for the output and 256 of contents: ten fit, an eleventh does not.
    cache = ResponseCache(10 * KILOBYTE)
    for number in range(10):
        cache.put(key(number), outputs(number))
    cache.get(key(0))
    cache.put(key(10), outputs(10))
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None
    statistics = cache.statistics()
    assert (statistics.entries, statistics.evictions) == (10, 1)
    assert statistics.held_bytes == 10 * KILOBYTE


def test_an_answer_that_would_fill_the_room_is_not_kept() -> None:
    cache = ResponseCache(10 * KILOBYTE)
    assert not cache.put(key(1), outputs(1, 1000))
    assert cache.statistics().entries == 0


def test_strings_count_by_their_length() -> None:
    cache = ResponseCache(16 * KILOBYTE)
    assert cache.put(key(1), {"y": np.array([b"a", b"bb"], dtype=object)})
    assert cache.statistics().held_bytes == 512 + 256 + 2 * 64 + 3
    assert not cache.put(key(2), {"y": np.array([b"a" * 4096], dtype=object)})


def test_putting_again_replaces() -> None:
    cache = ResponseCache(64 * KILOBYTE)
    cache.put(key(1), outputs(1))
    cache.put(key(1), outputs(2))
    found = cache.get(key(1))
    assert found is not None
    assert found["y"][0] == 2
    assert cache.statistics().held_bytes == KILOBYTE


def test_no_room_keeps_nothing() -> None:
    cache = ResponseCache(0)
    assert not cache.is_on
    assert not cache.put(key(1), {})
    assert cache.get(key(1)) is None


def test_threads_never_make_it_hold_more_than_its_room() -> None:
    cache = ResponseCache(20 * KILOBYTE)
    wrong: list[object] = []

    def work(first: int) -> None:
        for number in range(first, first + 300):
            cache.put(key(number % 50), outputs(number % 50))
            found = cache.get(key(number % 37))
            if found is not None and found["y"][0] != number % 37:
                wrong.append(number)
            if cache.statistics().held_bytes > 20 * KILOBYTE:
                wrong.append("too much")

    threads = [threading.Thread(target=work, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong
    assert cache.statistics().held_bytes == cache.statistics().entries * KILOBYTE
