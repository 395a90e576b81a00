"""Large arrays stay on disk, and are worth what they would be in memory."""

import io
import mmap
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyweight.compressor import storage
from flyweight.compressor.data import DataSet, check_usable, load_data
from flyweight.compressor.errors import DataError


@pytest.fixture(autouse=True)
def all_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every array count as large, and go through it in small pieces."""
    monkeypatch.setattr(storage, "LARGE_BYTES", 1)
    monkeypatch.setattr(storage, "_CHUNK_BYTES", 100)


def is_mapped(array: np.ndarray) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mapped_file_is_worth_what_it_would_be_in_memory(
    save: Callable[..., None], order: str, tmp_path: Path
) -> None:
    x = np.asarray(np.random.default_rng(0).standard_normal((50, 3, 4)), order=order)  # type: ignore[call-overload]
    label = np.arange(50) % 2
    save(tmp_path / "d.npz", x=x, label=label)
    data = load_data(tmp_path / "d.npz")
    assert is_mapped(data.inputs["x"])
    assert type(data.inputs["x"]) is np.ndarray
    np.testing.assert_array_equal(data.inputs["x"], x)
    assert data.digest == DataSet({"x": x}, label).digest


def test_shards_are_joined_on_disk(tmp_path: Path) -> None:
    x = np.arange(60, dtype=np.float32).reshape(20, 3)
    for place, part in enumerate(np.split(x, 4)):
        np.savez(tmp_path / f"{place}.npz", x=part)
    data = load_data(tmp_path)
    assert is_mapped(data.inputs["x"])
    np.testing.assert_array_equal(data.inputs["x"], x)


@settings(max_examples=20)
@given(indices=st.lists(st.integers(0, 19), min_size=1, max_size=40))
def test_rows_taken_from_a_mapping_are_those_taken_from_memory(indices: list[int]) -> None:
    x = np.arange(60).reshape(20, 3)
    on_disk = storage.concatenate([x[:7], x[7:]])
    chosen = np.array(indices)
    taken = storage.take_rows(on_disk, chosen)
    assert is_mapped(taken)
    np.testing.assert_array_equal(taken, x[chosen])


def test_released_values_are_read_again() -> None:
    x = np.arange(10_000.0)
    on_disk = storage.concatenate([x])
    storage.release(on_disk)
    np.testing.assert_array_equal(on_disk, x)
    storage.release(x)
    assert x[-1] == 9999


def test_going_through_much_data_takes_the_memory_of_a_batch(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.ones((256, 65536), np.float32))  # 64 MB
    storage._CHUNK_BYTES = 1 << 20
    data = load_data(tmp_path / "d.npz")
    before, largest = resident_bytes(), 0
    for batch in data.batches(4):
        assert batch["x"].sum() == 4 * 65536
        largest = max(largest, resident_bytes())
    assert largest - before < 16 << 20


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_full_disk_is_told_and_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(
        DataError, match=r"The data need 480 bytes in .* \(No space left on device\); make room there"
    ):
        storage.concatenate([np.arange(60)])


def test_a_flipped_bit_is_found_before_anything_is_mapped(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((50, 4)))
    whole = bytearray((tmp_path / "d.npz").read_bytes())
    whole[whole.find(b"NUMPY") + 400] ^= 1
    (tmp_path / "d.npz").write_bytes(whole)
    with pytest.raises(DataError, match=r"is not an \.npz file of plain arrays \(.*Bad CRC-32"):
        load_data(tmp_path / "d.npz")


def test_a_header_that_promises_more_than_there_is_is_found(tmp_path: Path) -> None:
    entry = io.BytesIO()
    np.save(entry, np.zeros((50, 4)))
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", entry.getvalue().replace(b"(50, 4)", b"(90, 9)"))
    with pytest.raises(DataError, match=r"'x\.npy' has 1728 bytes and its header says 6608"):
        load_data(tmp_path / "d.npz")


def test_a_large_entry_of_objects_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.array([{}] * 50, dtype=object))
    with pytest.raises(DataError, match="it holds pickled objects"):
        load_data(tmp_path / "d.npz")


def test_a_header_of_an_unknown_version_is_told(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", b"\x93NUMPY\x09\x00" + b" " * 100)
    with pytest.raises(DataError, match=r"is not an \.npz file of plain arrays"):
        load_data(tmp_path / "d.npz")


@pytest.mark.parametrize(
    ("samples", "labels", "sentence"),
    [
        (7, None, "The data have 7 samples and 8 are the fewest"),
        (9, np.full(9, 3), "All 9 labels are 3: a model that always answers this"),
        (9, np.full(9, 0.5), r"All 9 labels are 0\.5"),
    ],
)
def test_data_that_cannot_judge_are_refused(samples: int, labels: np.ndarray | None, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        check_usable(DataSet({"x": np.zeros((samples, 2))}, labels))


def test_eight_samples_of_two_classes_can_judge() -> None:
    check_usable(DataSet({"x": np.zeros((8, 2))}, np.arange(8) % 2))
