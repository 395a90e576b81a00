"""The rows of an .npz file, and how they become requests."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.client import ModelInfo, TensorInfo
from flyweight.client.cli.rows import DataError, Feed, make_feed, read_arrays

PATH = Path("data.npz")


def model(*inputs: TensorInfo) -> ModelInfo:
    return ModelInfo("m", ("1",), "", inputs, ())


def feed(arrays: dict[str, Any], *inputs: TensorInfo, batch_rows: int | None = None) -> Feed:
    return make_feed(PATH, arrays, model(*inputs), batch_rows)


X = TensorInfo("x", "FP32", (-1, 2))
ROWS = np.arange(10, dtype=np.float32).reshape(5, 2)


def test_rows_go_out_one_by_one_by_default() -> None:
    requests = list(feed({"x": ROWS}, X))
    assert [request["x"].tolist() for request in requests] == [[row] for row in ROWS.tolist()]


def test_the_last_request_may_be_shorter() -> None:
    found = feed({"x": ROWS}, X, batch_rows=2)
    assert [len(request["x"]) for request in found] == [2, 2, 1]
    assert found.requests == 3


def test_every_row_is_sent_once_and_in_order() -> None:
    for rows in range(1, 7):
        sent = np.concatenate([request["x"] for request in feed({"x": ROWS}, X, batch_rows=rows)])
        assert np.array_equal(sent, ROWS)


def test_an_input_without_a_batch_axis_gets_its_whole_shape() -> None:
    scalar = TensorInfo("s", "FP32", ())
    found = feed({"s": np.arange(3, dtype=np.float32)}, scalar)
    assert [request["s"].shape for request in found] == [(), (), ()]
    assert not found.answers_have_rows


def test_inputs_with_and_without_a_batch_axis_go_together_row_by_row() -> None:
    arrays = {"x": ROWS, "t": np.arange(5, dtype=np.float32)}
    found = feed(arrays, X, TensorInfo("t", "FP32", ()))
    assert [(request["x"].shape, request["t"].shape) for request in found] == [((1, 2), ())] * 5
    assert found.answers_have_rows


def test_a_fixed_batch_decides_how_many_rows_go_out() -> None:
    fixed = TensorInfo("x", "FP32", (5, 2))
    assert feed({"x": ROWS}, fixed).rows_per_request == 5
    with pytest.raises(DataError, match="5 rows at a time, not 2"):
        feed({"x": ROWS}, fixed, batch_rows=2)
    with pytest.raises(DataError, match="4 rows, and model 'm' takes 5"):
        feed({"x": ROWS[:4]}, fixed)


def test_labels_are_not_an_input_unless_the_model_has_one_of_that_name() -> None:
    labels = np.arange(5)
    assert np.array_equal(feed({"x": ROWS, "label": labels}, X).labels, labels)
    found = feed({"x": ROWS, "label": labels}, X, TensorInfo("label", "INT64", (-1,)))
    assert found.labels is None
    assert "label" in next(iter(found))


def test_text_is_fed_to_inputs_of_bytes() -> None:
    found = feed({"t": np.array(["a", "b"])}, TensorInfo("t", "BYTES", (-1,)))
    assert found.rows == 2


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"y": ROWS}, "data.npz holds y, and model 'm' takes x; save one array per input"),
        ({"x": ROWS, "y": ROWS}, "holds x, y, and model 'm' takes x"),
        ({}, "holds nothing"),
        ({"x": ROWS.astype(np.float64)}, "array 'x' of data.npz is float64, which travels as FP64"),
        ({"x": ROWS.astype(np.complex64)}, "array 'x' of data.npz"),
        ({"x": ROWS[:, :1]}, r"a row of array 'x' of data.npz has shape \[1\], .* \[-1, 2\]"),
        ({"x": ROWS[None, None]}, "a row of array 'x'"),
        ({"x": ROWS[:0]}, "data.npz holds no rows"),
        ({"x": ROWS, "label": np.arange(4)}, r"different numbers of rows \(x: 5, label: 4\)"),
    ],
)
def test_data_that_do_not_fit_are_refused_by_name(arrays: dict[str, Any], sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        feed(arrays, X)


def test_inputs_with_different_fixed_batches_are_refused() -> None:
    with pytest.raises(DataError, match="different sizes"):
        feed({"x": ROWS, "y": ROWS}, TensorInfo("x", "FP32", (5, 2)), TensorInfo("y", "FP32", (1, 2)))


def test_a_folder_is_read_shard_by_shard_in_the_order_of_names(tmp_path: Path) -> None:
    for number in (2, 1):
        np.savez(tmp_path / f"{number}.npz", x=np.full((2, 1), number))
    assert read_arrays(tmp_path)["x"].ravel().tolist() == [1, 1, 2, 2]


def test_shards_must_hold_the_same_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", x=ROWS)
    np.savez(tmp_path / "2.npz", y=ROWS)
    with pytest.raises(DataError, match="same arrays"):
        read_arrays(tmp_path)
    np.savez(tmp_path / "2.npz", x=ROWS[:, :1])
    with pytest.raises(DataError, match="put together"):
        read_arrays(tmp_path)


@pytest.mark.parametrize("content", [b"", b"plain text", b"PK\x05\x06", b"\x93NUMPY\x01\x00"])
def test_a_file_that_is_no_npz_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"odd\.npz is not an \.npz file"):
        read_arrays(path)


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    path = tmp_path / "objects.npz"
    np.savez(path, x=np.array([object()]))
    with pytest.raises(DataError, match="plain arrays"):
        read_arrays(path)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz does not exist"):
        read_arrays(tmp_path / "nowhere.npz")
    with pytest.raises(DataError, match=r"holds no \.npz file"):
        read_arrays(tmp_path)
