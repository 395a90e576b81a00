"""Arrays that need not be in memory: mapped from the file they are in, or from a temporary one.

What is mapped is read when it is used. `release` gives the memory back, so that going through any number of
samples takes the memory of a few.
"""

import mmap
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import DataError

Array = NDArray[Any]

# Smaller arrays are read at once: mapping gains nothing where everything fits.
LARGE_BYTES: Final = 32 << 20
_CHUNK_BYTES: Final = 8 << 20
# Length of a local file header without name and extra field, and where it says how long those are:
# APPNOTE.TXT 6.3.10, section 4.3.7.
_HEADER_BYTES: Final = 30
_LENGTHS: Final = slice(26, 30)


def chunks(array: Array) -> Iterator[Array]:
    """Yield an array in views of some megabytes along its first axis, and release it behind them."""
    rows = max(1, _CHUNK_BYTES // max(1, array.nbytes // max(1, len(array))))
    for start in range(0, len(array), rows):
        yield array[start : start + rows]
        release(array)


def release(array: Array) -> None:
    """Give back the memory of a mapped array; its values stay, and are read again when they are used."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


def take_rows(array: Array, indices: Array) -> Array:
    """Return the rows at `indices`; in a temporary file when they are large and the array is mapped."""
    shape = (len(indices), *array.shape[1:])
    if not _is_mapped(array) or int(np.prod(shape)) * array.dtype.itemsize < LARGE_BYTES:
        return np.asarray(array[indices])
    taken = _on_disk(array.dtype, shape)
    rows = max(1, _CHUNK_BYTES // max(1, array.nbytes // len(array)))
    for start in range(0, len(indices), rows):
        taken[start : start + rows] = array[indices[start : start + rows]]
        release(array)
        release(taken)
    return taken


def concatenate(parts: Sequence[Array]) -> Array:
    """Return arrays one after the other along the first axis; in a temporary file when that is large."""
    if sum(part.nbytes for part in parts) < LARGE_BYTES or parts[0].dtype.hasobject:
        return np.concatenate(parts)
    whole = _on_disk(parts[0].dtype, (sum(map(len, parts)), *parts[0].shape[1:]))
    place = 0
    for part in parts:
        for chunk in chunks(part):
            whole[place : place + len(chunk)] = chunk
            place += len(chunk)
            release(whole)
    return whole


def read_archive(path: Path, loaded: Mapping[str, Array], archive: zipfile.ZipFile) -> dict[str, Array]:
    """Return the arrays of an .npz file: small ones in memory, large ones mapped.

    A large entry that is stored plainly is mapped where it is; a compressed one is unpacked into a temporary
    file. Either is read once, which checks its CRC.

    Args:
        path: the file.
        loaded: numpy's view of it.
        archive: zipfile's view of it.

    Raises:
        ValueError: an entry is damaged or holds objects.
    """
    entries = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
    return {
        name: loaded[name] if entries[name].file_size < LARGE_BYTES else _entry(path, archive, entries[name])
        for name in loaded
    }


def _entry(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Array:
    with archive.open(info) as member:
        shape, fortran, dtype = _header(member, info)
        start = member.tell()
        said = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
        if said != info.file_size:
            raise ValueError(f"entry {info.filename!r} has {info.file_size} bytes and its header says {said}")
        order: Literal["F", "C"] = "F" if fortran else "C"
        if info.compress_type == zipfile.ZIP_STORED:
            while member.read(_CHUNK_BYTES):
                pass
            offset = _data_offset(path, info) + start
            # Copy on write, because torch warns of arrays that cannot be written.
            return _plain(np.memmap(path, dtype, "c", offset, shape, order))
        with tempfile.TemporaryFile() as file:
            _reserve(file, said - start)
            shutil.copyfileobj(member, file, _CHUNK_BYTES)
            file.flush()
            return _plain(np.memmap(file, dtype, "c", 0, shape, order))


def _header(member: IO[bytes], info: zipfile.ZipInfo) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(member)
    else:
        raise ValueError(f"entry {info.filename!r} has a header of version {version}")
    if dtype.hasobject:
        raise ValueError("pickled objects")
    return shape, fortran, dtype


def _data_offset(path: Path, info: zipfile.ZipInfo) -> int:
    """Return where an entry's bytes begin: behind its local header, whose name and extra field may differ."""
    with path.open("rb") as file:
        file.seek(info.header_offset)
        lengths = file.read(_HEADER_BYTES)[_LENGTHS]
    name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    return info.header_offset + _HEADER_BYTES + name + extra


def _on_disk(dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    with tempfile.TemporaryFile() as file:
        _reserve(file, int(np.prod(shape)) * dtype.itemsize)
        return _plain(np.memmap(file, dtype, "r+", 0, shape))


def _reserve(file: IO[bytes], size_bytes: int) -> None:
    """Make room before anything is mapped: writing to a mapping on a full disk would kill the process."""
    try:
        os.posix_fallocate(file.fileno(), 0, size_bytes)
    except OSError as error:
        raise DataError(
            f"The data need {size_bytes} bytes in {tempfile.gettempdir()} ({error.strerror}); make room "
            "there or name another folder in TMPDIR."
        ) from error


def _plain(mapped: Array) -> Array:
    """Return a mapping as an ordinary array; it keeps the mapping alive."""
    return mapped.view(np.ndarray)


def _is_mapped(array: Array) -> bool:
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, mmap.mmap)
