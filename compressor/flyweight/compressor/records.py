"""The document of the last run, kept beside a model's variants: it also knows what was not published."""

import contextlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flyweight.protos.errors import RepositoryError

if TYPE_CHECKING:
    from flyweight.compressor.outcome import CompressionReport

# Hidden, so that no server takes it for a variant.
RECORD_FOLDER: Final = ".flyweight"
RECORD_FILE: Final = "report.json"
_UNFINISHED: Final = ".unfinished"
# Nobody writes a record for as long as this; what is older was left by a run that was killed.
_ABANDONED_SECONDS: Final = 3600.0
# Some thousand variants; anything larger was not written by us.
_LARGEST_RECORD_BYTES: Final = 256 << 20
# Of an entry; what else it holds was written by a run that is over, and stays as it is.
_ABOUT_THE_FOLDER: Final = ("path", "published")


def record_folder(repository: Path, model: str) -> Path:
    """Return where the record and the report of a model's last run are."""
    return repository / model / RECORD_FOLDER


def write_record(report: "CompressionReport") -> Path:
    """Write the document of a run, whole or not at all; called after every variant.

    Raises:
        RepositoryError: the repository cannot be written.
    """
    path = record_folder(report.repository, report.model) / RECORD_FILE
    unfinished = path.with_suffix(f".{os.getpid()}{_UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path.parent)
        unfinished.write_text(json.dumps(report.document(), indent=1, allow_nan=False), encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise RepositoryError(
            f"The record {path} cannot be written ({error.strerror}); free space or check the rights."
        ) from error
    return path


def _remove_abandoned(folder: Path) -> None:
    for path in folder.glob(f"*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                path.unlink()


def read_record(repository: Path, model: str) -> dict[str, Any] | None:
    """Return the document of the last run; None where there is none, or it is damaged."""
    path = record_folder(repository, model) / RECORD_FILE
    try:
        if path.stat().st_size > _LARGEST_RECORD_BYTES:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def speaks_of(record: Mapping[str, Any], data: str) -> bool:
    """Tell whether a record is of a run on these data; of others it has other figures."""
    described = record.get("data")
    return isinstance(described, dict) and described.get("digest") == data


def entries_of(record: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return those variants of a record that look like one, by name; anybody may have written the file."""
    variants = record.get("variants")
    return {
        entry["name"]: entry
        for entry in (variants if isinstance(variants, list) else ())
        if isinstance(entry, dict) and isinstance(entry.get("name"), str)
    }


def joined(variant: dict[str, Any], entry: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a variant with the record's details, when the record speaks of the same files and figures."""
    if entry is None or entry.get("published") is not True:
        return variant
    quality, latency = entry.get("quality"), entry.get("latency")
    same = (
        entry.get("bytes") == variant["bytes"]
        and isinstance(quality, dict)
        and quality.get("value") == variant["quality"]["value"]
        and isinstance(latency, dict)
        and latency.keys() == variant["latency"].keys()
    )
    return {**variant, **entry, **{key: variant[key] for key in _ABOUT_THE_FOLDER}} if same else variant
