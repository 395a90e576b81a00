import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.server.batching.job import Job
from flyweight.server.batching.merging import merge, split
from flyweight.server.runtime.seam import Array


def job(**inputs: Array) -> Job:
    rows = len(next(iter(inputs.values())))
    return Job(inputs, rows, ("y",), 0.0, lambda _: None)


def numbered(rows: int, start: int = 0, width: int = 2) -> Array:
    return np.arange(start, start + rows * width, dtype=np.float32).reshape(rows, width)


def test_rows_follow_one_another() -> None:
    merged = merge([job(x=numbered(1)), job(x=numbered(2, 10))])
    np.testing.assert_array_equal(merged["x"], [[0, 1], [10, 11], [12, 13]])


def test_one_alone_is_not_copied() -> None:
    only = job(x=numbered(3))
    assert merge([only])["x"] is only.inputs["x"]


def test_shares_are_views() -> None:
    jobs, y = [job(x=numbered(1)), job(x=numbered(2))], numbered(3)
    shares = list(split({"y": y}, jobs) or ())
    assert [share["y"].tolist() for share in shares] == [[[0, 1]], [[2, 3], [4, 5]]]
    assert all(np.shares_memory(share["y"], y) for share in shares)


def test_what_has_not_a_row_for_each_row_is_nobodys() -> None:
    jobs = [job(x=numbered(1)), job(x=numbered(2))]
    for stray in (np.zeros((2, 2)), np.zeros((4, 2)), np.float32(1.0), np.zeros(())):
        assert split({"y": numbered(3), "z": np.asarray(stray)}, jobs) is None


def test_an_output_without_rows_belongs_to_nobody() -> None:
    assert split({"y": np.zeros((0, 2))}, [job(x=numbered(1)), job(x=numbered(1))]) is None


def test_texts_are_merged_like_numbers() -> None:
    first, second = np.array([[b"a"]], object), np.array([[b"bc"], [b""]], object)
    merged = merge([job(x=first), job(x=second)])["x"]
    assert merged.tolist() == [[b"a"], [b"bc"], [b""]]


arrays = st.sampled_from([np.float32, np.int64, np.uint8, np.bool_, np.float16])


@settings(max_examples=100)
@given(
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    kinds=st.lists(st.tuples(arrays, st.lists(st.integers(0, 3), max_size=2)), min_size=1, max_size=3),
    seed=st.integers(0, 2**16),
)
def test_everybody_gets_back_what_they_put_in(
    rows: list[int], kinds: list[tuple[type[np.generic], list[int]]], seed: int
) -> None:
    random = np.random.default_rng(seed)
    jobs = [
        job(
            **{
                f"t{place}": random.integers(0, 200, (count, *shape)).astype(dtype)
                for place, (dtype, shape) in enumerate(kinds)
            }
        )
        for count in rows
    ]
    shares = list(split(merge(jobs), jobs) or ())
    assert len(shares) == len(jobs)
    for share, each in zip(shares, jobs, strict=True):
        assert share.keys() == each.inputs.keys()
        for name, array in share.items():
            assert array.dtype == each.inputs[name].dtype
            np.testing.assert_array_equal(array, each.inputs[name])
