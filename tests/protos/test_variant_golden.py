"""Golden samples survive the disk, and no file in their place does harm."""

import io
import math
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyweight.protos.errors import ManifestError, TensorError
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, read_golden, write_golden
from flyweight.protos.variant.golden import largest_relative_error


def samples() -> GoldenSamples:
    rng = np.random.default_rng(3)
    return GoldenSamples(
        inputs={"image": rng.random((2, 3), np.float32), "a/b": np.array(True)},
        outputs={"file": np.array([[1], [2]]), "half": rng.random((1, 0)).astype(np.float16)},
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_golden(tmp_path, samples())
    read = read_golden(tmp_path / GOLDEN_FILE)
    for written, back in [(samples().inputs, read.inputs), (samples().outputs, read.outputs)]:
        assert list(back) == list(written)
        for name, array in written.items():
            np.testing.assert_array_equal(back[name], array, strict=True)


def test_the_file_is_an_npz_that_numpy_reads(tmp_path: Path) -> None:
    write_golden(tmp_path, samples())
    with np.load(tmp_path / GOLDEN_FILE, allow_pickle=False) as arrays:
        assert sorted(arrays.files) == ["input:a/b", "input:image", "output:file", "output:half"]
        np.testing.assert_array_equal(arrays["output:file"], [[1], [2]])


def test_the_same_samples_give_the_same_bytes(tmp_path: Path) -> None:
    write_golden(tmp_path, samples())
    first = (tmp_path / GOLDEN_FILE).read_bytes()
    write_golden(tmp_path, samples())
    assert (tmp_path / GOLDEN_FILE).read_bytes() == first


@pytest.mark.parametrize("array", [np.array([b"x"], object), np.array(["x"]), np.array([1j])])
def test_only_numbers_are_written(tmp_path: Path, array: np.ndarray) -> None:
    with pytest.raises(TensorError, match=r"'input:x' is of .* golden samples hold numbers only"):
        write_golden(tmp_path, GoldenSamples({"x": array}, {}))


def npy(shape: tuple[int, ...], data: bytes, descr: str = "<f4") -> bytes:
    """Return an .npy whose header says `shape`, whatever `data` is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def unclosed() -> bytes:
    """Return an .npy whose header opens a bracket that nothing closes."""
    return npy((2, 3), bytes(24)).replace(b"(2, 3), }", b"(2, 3), {")


def write_entry(path: Path, content: bytes, packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        archive.writestr("input:x.npy", content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        npy((2**60,), b"1234"),
        npy((1,), b"12345678"),
        npy((1,), b""),
        npy((1,), b"12345678", "|O"),
        unclosed(),
    ],
    ids=["empty", "text", "allocates too much", "too long", "too short", "objects", "open bracket"],
)
def test_entries_that_are_no_arrays_are_refused(tmp_path: Path, content: bytes) -> None:
    path = write_entry(tmp_path / GOLDEN_FILE, content)
    with pytest.raises(ManifestError, match=r"golden\.npz does not hold golden samples"):
        read_golden(path)


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_entries_that_numpy_would_not_pack_so_are_refused(tmp_path: Path, packing: int) -> None:
    """Their decompressors have errors of their own, which nobody would expect."""
    path = write_entry(tmp_path / GOLDEN_FILE, npy((1,), b"1234"), packing)
    with pytest.raises(ManifestError, match="packed in a way that numpy does not use"):
        read_golden(path)


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / GOLDEN_FILE
    megabyte = bytes(1 << 20)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for index in range(257):
            archive.writestr(f"input:{index}.npy", megabyte)
    with pytest.raises(ManifestError, match="unpacks to 269484032 bytes, too many"):
        read_golden(path)


def test_an_encrypted_entry_is_refused(tmp_path: Path) -> None:
    content = bytearray(write_entry(tmp_path / GOLDEN_FILE, npy((1,), b"1234")).read_bytes())
    # Bit 0 of the flags, in the local header at byte 6 and in the central one at byte 8 after its signature.
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / GOLDEN_FILE).write_bytes(content)
    with pytest.raises(ManifestError, match="does not hold golden samples"):
        read_golden(tmp_path / GOLDEN_FILE)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="does not hold golden samples"):
        read_golden(tmp_path / GOLDEN_FILE)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 600), st.binary(min_size=1, max_size=4))
def test_no_altered_file_raises_anything_else(tmp_path: Path, position: int, patch: bytes) -> None:
    write_golden(tmp_path, GoldenSamples({"x": np.arange(9)}, {"y": np.ones(2)}))
    content = bytearray((tmp_path / GOLDEN_FILE).read_bytes())
    content[position : position + len(patch)] = patch
    (tmp_path / GOLDEN_FILE).write_bytes(content)
    with suppress(ManifestError):
        read_golden(tmp_path / GOLDEN_FILE)


@pytest.mark.parametrize(
    ("expected", "actual", "error"),
    [
        ([1.0, -4.0], [1.0, -4.5], 0.125),
        ([0.0, 0.0], [0.0, 0.5], 0.5),
        ([1.0], [[1.0]], math.inf),
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1.0, math.nan], [1.0, 2.0], math.inf),
        ([1.0, 2.0], [1.0, math.nan], math.inf),
        ([math.inf, 2.0], [math.inf, 2.0], 0.0),
        ([math.inf], [-math.inf], math.inf),
        ([], [], 0.0),
        ([1, 2], [1, 2], 0.0),
        ([1, 2], [1, 3], math.inf),
        ([True], [False], math.inf),
        (["a"], ["a"], 0.0),
        ([1.0], ["a"], math.inf),
    ],
)
def test_the_largest_relative_error(expected: list[object], actual: list[object], error: float) -> None:
    assert largest_relative_error(np.array(expected), np.array(actual)) == error
