"""Reading a repository folder into a snapshot, whatever comes and goes meanwhile."""

import os
from pathlib import Path
from types import MappingProxyType
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.protos.variant import is_valid_name
from flyweight.server.repository.fingerprint import take_fingerprint
from flyweight.server.repository.snapshot import Fault, ModelSnapshot, Snapshot, VariantSnapshot

CONFIG_FILE: Final = "config.pbtxt"
TRAFFIC_FILE: Final = "traffic.yaml"

# Texts that people write; a larger file is something else under that name, and is not read into memory.
_LARGEST_TEXT_BYTES: Final = 4 << 20

# The root of every ext4 volume has it, readable by root only; it is nobody's model.
_NOT_MODELS: Final = frozenset({"lost+found"})

_NAME_ADVICE: Final = (
    "use 1 to 128 letters, digits, '.', '_' or '-', the first a letter or a digit; it is not served."
)


def scan_repository(root: Path) -> Snapshot:
    """Read the repository once. Models and variants that cannot be read are named in `faults`.

    A model or variant that vanishes meanwhile is left out, as if it had vanished before.

    Raises:
        RepositoryError: the root itself is not a folder that can be read.
    """
    try:
        folders = _subfolders(root)
    except OSError as error:
        raise RepositoryError(
            f"The repository {root} cannot be read ({error.strerror}); check that the folder exists, is "
            "mounted and may be read."
        ) from error
    faults: list[Fault] = []
    models: dict[str, ModelSnapshot] = {}
    for folder in folders:
        if folder.name in _NOT_MODELS:
            continue
        if not is_valid_name(folder.name):
            faults.append(Fault(folder.name, "", f"{folder.name!r} cannot name a model: {_NAME_ADVICE}"))
            continue
        model = _scan_model(folder, faults)
        if model is not None:
            models[model.name] = model
    return Snapshot(MappingProxyType(models), tuple(sorted(faults)))


def _scan_model(folder: Path, faults: list[Fault]) -> ModelSnapshot | None:
    name = folder.name
    try:
        variants = _scan_variants(folder, faults)
        config_text = _read_text(folder / CONFIG_FILE)
        traffic_text = _read_text(folder / TRAFFIC_FILE)
    except FileNotFoundError:
        return None
    except OSError as error:
        faults.append(Fault(name, "", _unreadable(error, folder), unreadable=True))
        return None
    return ModelSnapshot(name, folder, MappingProxyType(variants), config_text, traffic_text)


def _scan_variants(model_folder: Path, faults: list[Fault]) -> dict[str, VariantSnapshot]:
    variants: dict[str, VariantSnapshot] = {}
    model = model_folder.name
    for folder in _subfolders(model_folder):
        name = folder.name
        if not is_valid_name(name):
            faults.append(Fault(model, name, f"{name!r} cannot name a variant: {_NAME_ADVICE}"))
            continue
        try:
            variants[name] = VariantSnapshot(name, folder, take_fingerprint(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            faults.append(Fault(model, name, _unreadable(error, folder), unreadable=True))
    return variants


def _subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder that are not hidden, in order of name; links to folders count."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".") and entry.is_dir()]
    return [folder / name for name in sorted(names)]


def _read_text(path: Path) -> str | None:
    """Return a file's text, None when there is no such file; bytes that are not UTF-8 become U+FFFD."""
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_TEXT_BYTES).decode("utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _unreadable(error: OSError, folder: Path) -> str:
    return f"{error.filename or folder} cannot be read ({error.strerror}); check its permissions."
