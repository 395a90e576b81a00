"""The file that a variant holds its model in, looked at before it is loaded."""

from dataclasses import dataclass
from pathlib import Path

from flyweight.protos.variant.names import CODED_SUFFIX
from flyweight.server.errors import LoadFailed


@dataclass(frozen=True, slots=True)
class ModelFile:
    """A model file that is there; `folder_bytes` is the size of everything in its folder."""

    path: Path
    is_coded: bool
    folder_bytes: int


def inspect_model_file(path: Path) -> ModelFile:
    """Return what is known of a model file without reading it.

    Raises:
        LoadFailed: it is not a file, or its folder cannot be read.
    """
    if not path.is_file():
        raise LoadFailed(f"{path} is not there, or is not a file; a variant holds its model in one.")
    return ModelFile(path, path.suffix == CODED_SUFFIX, _size_bytes(path.parent))


def _size_bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        raise LoadFailed(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error
