import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.tensors.bfloat16 import narrow_to_bfloat16
from flyweight.server.errors import InvalidRequest
from flyweight.server.rpc import classification
from flyweight.server.rpc.classification import classify


def test_the_extensions_own_examples() -> None:
    """Source: Triton's classification extension, which gives both."""
    assert classify("y", np.array([[1, 5, 10, 4]]), 2).tolist() == [[b"10:2", b"5:1"]]
    labelled = classify(
        "y",
        np.array([1.1, 3.3, 0.5, 2.4], np.float32),
        2,
        ["", "index_1", "", "index_3"],
        has_batch_axis=False,
    )
    assert labelled.tolist() == [b"3.3:1:index_1", b"2.4:3:index_3"]


@given(st.lists(st.floats(width=32), min_size=1, max_size=9), st.integers(1, 12))
def test_it_is_the_start_of_the_sorted_row(values: list[float], count: int) -> None:
    row = np.array(values, np.float32)
    found = classify("y", row[None], count)[0]
    expected = sorted(
        range(row.size), key=lambda i: (-np.inf if np.isnan(row[i]) else row[i], -i), reverse=True
    )
    assert [int(each.split(b":")[1]) for each in found] == expected[:count]
    read_back = np.array([float(each.split(b":")[0]) for each in found], np.float32)
    np.testing.assert_array_equal(read_back, row[expected[:count]])


@pytest.mark.parametrize("dtype", ["u1", "u8", "i1", "i8", "f2", "f4", "f8"])
def test_numbers_of_every_type_are_compared_as_they_are(dtype: str) -> None:
    largest = np.iinfo(dtype).max if dtype[0] in "ui" else 3
    row = np.array([[0, largest, 1]], dtype)
    assert [each.split(b":")[1] for each in classify("y", row, 3)[0]] == [b"1", b"2", b"0"]


def test_the_first_of_equals_comes_first() -> None:
    assert classify("y", np.array([[1, 2, 2, 1]], np.int8), 3).tolist() == [[b"2:1", b"2:2", b"1:0"]]


@pytest.mark.parametrize(
    ("shape", "has_batch_axis", "expected"),
    [
        ((2, 3), True, (2, 2)),
        ((2, 3), False, (2,)),
        ((2, 3, 4), True, (2, 2)),
        ((2,), True, (2, 1)),
        ((), True, (1,)),
        ((0, 3), True, (0, 2)),
        ((2, 0), True, (2, 0)),
        ((0,), False, (0,)),
    ],
)
def test_each_row_has_its_own(
    shape: tuple[int, ...], has_batch_axis: bool, expected: tuple[int, ...]
) -> None:
    assert classify("y", np.zeros(shape), 2, has_batch_axis=has_batch_axis).shape == expected


@pytest.mark.parametrize("array", [np.array([b"a"], object), np.array([True])])
def test_what_is_no_number_has_no_classes(array: np.ndarray) -> None:
    with pytest.raises(InvalidRequest, match="'y' cannot be classified"):
        classify("y", array, 1)


def test_an_output_may_be_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classification, "MOST_ELEMENTS", 5)
    with pytest.raises(InvalidRequest, match="'y' has 6 entries"):
        classify("y", np.zeros((2, 3)), 1)


def test_bfloat16_is_classified_by_its_values() -> None:
    logits = narrow_to_bfloat16(np.array([1.5, -2.0, 300.0], np.float32))
    assert classify("y", logits, 2, has_batch_axis=False).tolist() == [b"300.0:2", b"1.5:0"]
