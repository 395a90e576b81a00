"""Golden samples: inputs, and the outputs a variant gave for them when it was published and must give again.

They catch what digests cannot: another processor, another runtime, another optimisation that changes answers.
They lie in an .npz file with arrays "input:NAME" and "output:NAME", batch axis first where there is one.
"""

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.protos.errors import ManifestError, TensorError

GOLDEN_FILE: Final = "golden.npz"

# One row of any model fits; a larger file is a mistake or an attack, and is not unpacked.
_LARGEST_UNPACKED_BYTES: Final = 256 << 20

# What zipfile, zlib and numpy raise on bytes that are no archive of plain arrays: RuntimeError on an
# encrypted entry, EOFError on a cut one, struct.error on a garbled directory, TokenError on a header whose
# brackets stay open.
_GARBLED: Final = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    SyntaxError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
# Of numpy.savez and numpy.savez_compressed. Other ways have decompressors, and errors, of their own.
_PACKINGS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class GoldenSamples:
    """Inputs by name, and the outputs they gave, by name."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


def write_golden(folder: Path, samples: GoldenSamples) -> None:
    """Write `samples` into a variant's folder.

    Raises:
        TensorError: an array holds something other than numbers and truth values.
    """
    arrays = {f"input:{name}": array for name, array in samples.inputs.items()}
    arrays |= {f"output:{name}": array for name, array in samples.outputs.items()}
    for name, array in arrays.items():
        if array.dtype.kind not in "biuf":
            raise TensorError(
                f"{name!r} is of {array.dtype}, and golden samples hold numbers only; publish models with "
                "other tensors without them."
            )
    # What numpy.savez_compressed does, which in older versions cannot be told to refuse objects.
    with zipfile.ZipFile(folder / GOLDEN_FILE, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def read_golden(path: Path) -> GoldenSamples:
    """Read golden samples.

    Raises:
        ManifestError: the file is missing, is not an .npz of plain arrays, or unpacks to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > _LARGEST_UNPACKED_BYTES:
                raise ManifestError(
                    f"{path} unpacks to {unpacked} bytes, too many for golden samples; publish the variant "
                    "again."
                )
            named = {entry.filename.removesuffix(".npy"): _read_array(archive, entry) for entry in entries}
    except _GARBLED as error:
        raise ManifestError(
            f"{path} does not hold golden samples ({error}); publish the variant again."
        ) from error
    return GoldenSamples(inputs=_with_prefix(named, "input:"), outputs=_with_prefix(named, "output:"))


def _read_array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Array:
    """Read one array after a look at its header, because numpy allocates whatever a header claims.

    Raises:
        ValueError: the header promises more or less than the entry holds, or objects; or it is packed in a
            way that numpy does not use.
    """
    if entry.compress_type not in _PACKINGS:
        raise ValueError(f"{entry.filename} is packed in a way that numpy does not use")
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read_header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read_header(file)
        if dtype.hasobject or file.tell() + math.prod(shape) * dtype.itemsize != entry.file_size:
            raise ValueError(f"{entry.filename} does not hold what its header says")
    with archive.open(entry) as file:
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
    return array


def _with_prefix(arrays: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def largest_relative_error(expected: Array, actual: Array) -> float:
    """Return max|actual - expected| / max|expected|, infinite where shapes or non-finite values differ.

    Integers, booleans and strings are equal (0.0) or not (infinite). An all-zero `expected` is compared
    absolutely.
    """
    if expected.shape != actual.shape:
        return math.inf
    if expected.dtype.kind != "f" or actual.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, actual) else math.inf
    reference, answer = expected.astype(np.float64), actual.astype(np.float64)
    finite = np.isfinite(reference)
    same_elsewhere = np.array_equal(reference[~finite], answer[~finite], equal_nan=True)
    if not same_elsewhere or not np.isfinite(answer[finite]).all():
        return math.inf
    if not finite.any():
        return 0.0
    scale = float(np.abs(reference[finite]).max()) or 1.0
    return float(np.abs(answer[finite] - reference[finite]).max()) / scale
