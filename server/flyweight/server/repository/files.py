"""Tensors in files beside config.pbtxt that it names: warm-up data and initial states."""

from pathlib import Path
from typing import Final

from flyweight.protos.errors import TensorError
from flyweight.protos.tensors import Array
from flyweight.protos.tensors.raw import decode_raw
from flyweight.protos.variant.names import is_inside_folder
from flyweight.server.errors import LoadFailed

# A sample is a tensor that a request could carry, and no request may carry more.
_LARGEST_FILE_BYTES: Final = 2 << 30


def read_tensor_file(folder: Path, name: str, datatype: str, shape: tuple[int, ...], what: str) -> Array:
    """Return a file's bytes, as raw tensor contents have them, as an array.

    Args:
        folder: the folder that the file must lie in.
        name: the file, as config.pbtxt names it.
        datatype: of the Open Inference Protocol.
        shape: of the array.
        what: what the file is for, as the sentence of an error opens.

    Raises:
        LoadFailed: the file cannot be read, lies elsewhere, or does not hold such a tensor.
    """
    content = _read(folder, name, what)
    try:
        return decode_raw(name, datatype, shape, content)
    except TensorError as error:
        raise LoadFailed(f"{what} names the file {name!r}, which does not fit: {error}") from error


def _read(folder: Path, name: str, what: str) -> bytes:
    if not is_inside_folder(name):
        raise LoadFailed(f"{what} names the file {name!r}, which must lie in {folder}; move it there.")
    path = folder / name
    try:
        # A link may lead out of the folder, and a pipe would be waited for.
        if not path.resolve().is_relative_to(folder.resolve()):
            raise LoadFailed(f"{what} names the file {name!r}, which leads out of {folder}; copy it there.")
        if not path.is_file():
            raise LoadFailed(f"{what} names the file {name!r}, and {path} is not there; add it.")
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise LoadFailed(f"{what} names {path}, which is longer than any tensor; shorten it.")
        return path.read_bytes()
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a loop of links"
        raise LoadFailed(f"{what} names {path}, which cannot be read ({reason}); check it.") from error
