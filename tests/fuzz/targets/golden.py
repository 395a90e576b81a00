"""golden.npz: an archive of arrays that somebody else may have written."""

import io
from functools import cache
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile

import numpy as np

from flyweight.protos.errors import ManifestError
from flyweight.protos.variant.golden import read_golden
from tests.fuzz.scratch import scratch_folder

_HEADER = b"\x01"


@cache
def _path() -> Path:
    return scratch_folder() / "golden.npz"


def check(data: bytes) -> None:
    """Read golden samples; anything but a ManifestError is a bug."""
    content = _archive(data[1:], ZIP_STORED) if data[:1] == _HEADER else data[1:]
    _path().write_bytes(content)
    try:
        samples = read_golden(_path())
    except ManifestError:
        return
    for array in (*samples.inputs.values(), *samples.outputs.values()):
        assert not array.dtype.hasobject


def _archive(entry: bytes, way: int) -> bytes:
    file = io.BytesIO()
    with ZipFile(file, "w", way) as archive:
        archive.writestr("input:x.npy", entry)
    return file.getvalue()


def _entry(array: "np.ndarray[tuple[int, ...], np.dtype[np.generic]]", version: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, version, allow_pickle=False)
    return file.getvalue()


def seeds() -> list[bytes]:
    """Return archives of every way to compress, and entries alone, whose checksums then fit."""
    array = np.ones((2, 3), np.float32)
    entries = [_entry(array, (1, 0)), _entry(array.astype(np.int8), (2, 0)), _entry(array, (3, 0))]
    ways = (ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA)
    return [
        *(_HEADER + entry for entry in entries),
        *(b"\0" + _archive(entries[0], way) for way in ways),
    ]
