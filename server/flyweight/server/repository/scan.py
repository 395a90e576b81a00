"""Reading a repository folder into a snapshot, whatever comes and goes meanwhile."""

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.protos.variant import is_valid_name
from flyweight.server.repository.fingerprint import Fingerprint, take_fingerprint, take_loose_files
from flyweight.server.repository.snapshot import Fault, ModelSnapshot, Snapshot, VariantSnapshot

CONFIG_FILE: Final = "config.pbtxt"
TRAFFIC_FILE: Final = "traffic.yaml"
WARMUP_FOLDER: Final = "warmup"
STATE_FOLDER: Final = "initial_state"
_FILE_FOLDERS: Final = (WARMUP_FOLDER, STATE_FOLDER)

# Texts that people write; what is longer is something else under that name. A thousand variants are a fifth
# of it, and it takes YAML half a second.
LARGEST_TEXT_CHARACTERS: Final = 128 << 10
# Enough that a text read in part is always longer than what is allowed: UTF-8 takes at most four bytes each.
_MOST_READ_BYTES: Final = 4 * LARGEST_TEXT_CHARACTERS + 1

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
    faults: list[Fault] = []
    try:
        folders = _subfolders(root, lambda name, why: faults.append(Fault(name, "", why, unreadable=True)))
    except OSError as error:
        raise RepositoryError(
            f"The repository {root} cannot be read ({error.strerror}); check that the folder exists, is "
            "mounted and may be read."
        ) from error
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
        files = _scan_files(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        faults.append(Fault(name, "", _unreadable(error, folder), unreadable=True))
        return None
    return ModelSnapshot(name, folder, MappingProxyType(variants), config_text, traffic_text, files)


def _scan_files(folder: Path) -> Fingerprint:
    """Return the files that a config.pbtxt may name: beside it, and in two folders of fixed names."""
    stamps = [stamp for stamp in take_loose_files(folder) if stamp.path not in {CONFIG_FILE, TRAFFIC_FILE}]
    for name in _FILE_FOLDERS:
        try:
            found = take_fingerprint(folder / name).files
        except (FileNotFoundError, NotADirectoryError):
            continue
        stamps += [replace(stamp, path=f"{name}/{stamp.path}") for stamp in found]
    return Fingerprint(tuple(sorted(stamps)))


def _scan_variants(model_folder: Path, faults: list[Fault]) -> dict[str, VariantSnapshot]:
    variants: dict[str, VariantSnapshot] = {}
    model = model_folder.name

    def blame(name: str, why: str) -> None:
        faults.append(Fault(model, name, why, unreadable=True))

    for folder in _subfolders(model_folder, blame):
        name = folder.name
        if not is_valid_name(name):
            faults.append(Fault(model, name, f"{name!r} cannot name a variant: {_NAME_ADVICE}"))
            continue
        try:
            variants[name] = VariantSnapshot(name, folder, take_fingerprint(folder))
        except FileNotFoundError:
            continue
        except OSError as error:
            blame(name, _unreadable(error, folder))
    return variants


def _subfolders(folder: Path, blame: Callable[[str, str], None]) -> list[Path]:
    """Return the folders in a folder that are not hidden, in order of name; links to folders count.

    `blame` is told the name of an entry that may be a folder and cannot be looked at, and why: a link that
    leads to itself or to where we may not look must not hide the others.
    """
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                if not entry.name.startswith(".") and entry.is_dir():
                    names.append(entry.name)
            except OSError as error:
                blame(entry.name, _unreadable(error, Path(entry.path)))
    return [folder / name for name in sorted(names)]


def _read_text(path: Path) -> str | None:
    """Return a file's text, None when there is no such file; bytes that are not UTF-8 become U+FFFD.

    More than LARGEST_TEXT_CHARACTERS of it may be returned, which is then not all of it, and must be refused.
    """
    try:
        # Opening a pipe would otherwise wait for its writer, and the repository would be read no more.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Not a regular file", str(path))
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(_MOST_READ_BYTES).decode("utf-8", errors="replace")
    finally:
        os.close(descriptor)


def _unreadable(error: OSError, folder: Path) -> str:
    return f"{error.filename or folder} cannot be read ({error.strerror}); check its permissions."
