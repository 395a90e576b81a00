"""The file of `--out`: every output and who answered each row, as plain arrays."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from flyweight.client.cli.rows import DataError
from flyweight.client.results import Array

# The array that names who answered; outputs keep their own names.
VARIANT_ARRAY: Final = "flyweight_variant"


def check_writable(path: Path) -> None:
    """Check, before any work is done for it, that a file can be written.

    Raises:
        DataError: its folder is not there, or may not be written to.
    """
    target = path if path.exists() else path.parent
    if not target.exists():
        raise DataError(f"{path} cannot be written: there is no folder {path.parent}; make it first.")
    if not os.access(target, os.W_OK):
        raise DataError(f"{path} cannot be written: no permission; choose another --out.")


def write_answers(path: Path, outputs: Mapping[str, Array], variants: Array) -> None:
    """Write outputs and the variant of each row; byte strings become numpy's fixed-width ones.

    Raises:
        DataError: the file cannot be written, or an output has the name of our own array.
    """
    if VARIANT_ARRAY in outputs:
        raise DataError(f"the model has an output {VARIANT_ARRAY!r}, the name of our own array in {path}.")
    try:
        # What np.savez does, but for outputs that are named like its own arguments, and without adding an
        # ending to the name that was asked for.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, array in {**outputs, VARIANT_ARRAY: variants}.items():
                # Objects could only be stored by pickle.
                plain = array.astype(np.bytes_) if array.dtype == object else array
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, plain, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}); choose another --out.") from error
