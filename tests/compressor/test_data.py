"""The data format that users rely on: what is read, and what is refused with which sentence."""

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.compressor.data import DataSet, load_data, save_data
from flyweight.compressor.errors import DataError

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_a_file_is_read_back_as_it_was_saved(tmp_path: Path) -> None:
    data = DataSet({"x": X, "ids": np.arange(4)}, np.array([0, 1, 0, 1]))
    save_data(tmp_path / "d.npz", data)
    read = load_data(tmp_path / "d.npz")
    assert {name: array.tolist() for name, array in read.inputs.items()} == {
        "x": X.tolist(),
        "ids": [0, 1, 2, 3],
    }
    assert read.labels is not None
    assert read.labels.tolist() == [0, 1, 0, 1]
    assert read.digest == data.digest


def test_shards_of_a_folder_follow_each_other_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", x=X[2:])
    np.savez(tmp_path / "a.npz", x=X[:2])
    assert load_data(tmp_path).inputs["x"].tolist() == X.tolist()


def test_the_digest_changes_with_a_value_a_name_a_type_and_a_label() -> None:
    changed = X.copy()
    changed[0, 0] = 7
    sets = [
        DataSet({"x": X}),
        DataSet({"x": changed}),
        DataSet({"y": X}),
        DataSet({"x": X.astype(np.float64)}),
        DataSet({"x": X}, np.zeros(4, dtype=np.int64)),
        DataSet({"x": X}, np.ones(4, dtype=np.int64)),
    ]
    assert len({data.digest for data in sets}) == len(sets)


@given(samples=st.integers(2, 50), fraction=st.floats(0, 1), seed=st.integers(0, 5))
def test_a_split_gives_every_sample_to_exactly_one_side(samples: int, fraction: float, seed: int) -> None:
    numbers = np.arange(samples)
    first, second = DataSet({"x": numbers}, numbers).split(fraction, seed)
    assert first.samples >= 1
    assert second.samples >= 1
    assert sorted([*first.inputs["x"], *second.inputs["x"]]) == numbers.tolist()
    assert first.labels is not None
    assert first.labels.tolist() == first.inputs["x"].tolist()


def test_batches_cover_all_samples_in_order() -> None:
    batches = list(DataSet({"x": X}).batches(3))
    assert [len(batch["x"]) for batch in batches] == [3, 1]
    assert np.concatenate([batch["x"] for batch in batches]).tolist() == X.tolist()


@pytest.mark.parametrize(
    ("inputs", "labels", "sentence"),
    [
        ({}, None, "The data hold no input; save"),
        ({}, np.zeros(9), "no input, since 'label' holds labels: an input of this name needs another; save"),
        ({"x": X[:0]}, None, "The data set is empty"),
        ({"x": X, "z": X[:2]}, None, r"different numbers of samples \(x: 4, z: 2\)"),
        ({"x": X}, np.zeros(3), r"different numbers of samples \(x: 4, label: 3\)"),
        ({"x": np.float32(1)}, None, "'x' is a single number"),
        ({"x": np.array([[0, 1], [np.nan, 0]])}, None, "'x' holds not-a-number in sample 1"),
        ({"x": X}, np.array(["a"] * 4), "give integers for classes or floats"),
        ({"x": X}, np.array([0, 1, np.inf, 0]), "Some labels are not finite"),
    ],
)
def test_data_that_cannot_be_used_are_refused(
    inputs: dict[str, np.ndarray], labels: np.ndarray | None, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        DataSet(inputs, labels)


def test_an_infinity_is_an_input_like_any_other() -> None:
    assert DataSet({"mask": np.array([0, -np.inf])}).samples == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.npz does not exist"):
        load_data(tmp_path / "nowhere.npz")


def test_a_folder_without_shards_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.npz file"):
        load_data(tmp_path)


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 half an archive"])
def test_a_file_that_is_no_archive_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "d.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.npz is not an \.npz file of plain arrays"):
        load_data(tmp_path / "d.npz")


def test_pickled_objects_are_never_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}, {}], dtype=object))
    with pytest.raises(DataError, match="it holds pickled objects"):
        load_data(tmp_path / "d.npz")


def test_a_bare_array_is_refused_with_advice(tmp_path: Path) -> None:
    with (tmp_path / "d.npz").open("wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"one bare array; save it with np\.savez"):
        load_data(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("second", "sentence"),
    [
        ({"z": X}, "every shard needs the same arrays"),
        ({"x": X.astype(np.float64)}, "shards must agree"),
        ({"x": X[:, :2]}, "shards must agree"),
        ({"x": np.float32(0)}, "is a single number"),
    ],
)
def test_shards_that_differ_are_refused(tmp_path: Path, second: dict[str, np.ndarray], sentence: str) -> None:
    np.savez(tmp_path / "a.npz", x=X)
    np.savez(tmp_path / "b.npz", **second)
    with pytest.raises(DataError, match=sentence):
        load_data(tmp_path)


def npz_of(header: bytes) -> bytes:
    """An archive with one entry x.npy, whose header is written by hand."""
    padded = header + b" " * (63 - (len(header) + 10) % 64) + b"\n"
    entry = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + bytes(64)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", entry)
    return buffer.getvalue()


def garbled(path: Path) -> bytes:
    np.savez_compressed(path, x=np.random.default_rng(0).standard_normal((60, 16)))
    whole = bytearray(path.read_bytes())
    whole[200:240] = b"\xff" * 40
    return bytes(whole)


def encrypted(path: Path) -> bytes:
    np.savez(path, x=X)
    whole = bytearray(path.read_bytes())
    whole[6] |= 1
    whole[whole.find(b"PK\x01\x02") + 8] |= 1
    return bytes(whole)


@pytest.mark.parametrize(
    ("contents", "reason"),
    [
        (garbled, "decompressing"),
        (encrypted, "encrypted"),
        (lambda _: npz_of(b"{'descr': '<f4', 'fortran_order': False, 'shape': 'x', }"), "shape"),
        (
            lambda _: npz_of(b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000, 16), }"),
            "MemoryError",
        ),
        (
            lambda _: npz_of(b"{'descr': '<f4', 'fortran_order': False, 'shape': (%d, 16), }" % 10**20),
            "OverflowError",
        ),
    ],
    ids=["garbled", "encrypted", "no shape", "bomb", "overflow"],
)
def test_a_damaged_archive_is_told_in_one_sentence(contents, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    path.write_bytes(contents(path))
    with pytest.raises(DataError, match=r"is not an \.npz file of plain arrays") as caught:
        load_data(path)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_that_is_no_array_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=X)
    with zipfile.ZipFile(tmp_path / "d.npz", "a") as archive:
        archive.writestr("README.txt", "hello")
    with pytest.raises(DataError, match=r"holds 'README\.txt', which is no array"):
        load_data(tmp_path / "d.npz")


@pytest.mark.parametrize("name", ["file", "allow_pickle", "a/b:0"])
def test_any_name_of_an_input_can_be_saved(name: str, tmp_path: Path) -> None:
    save_data(tmp_path / "d.npz", DataSet({name: X}))
    assert load_data(tmp_path / "d.npz").inputs[name].tolist() == X.tolist()
