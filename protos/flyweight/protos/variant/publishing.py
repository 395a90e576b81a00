"""Publish a variant so that a reader sees all of it or nothing.

The folder is filled under a hidden sibling name, flushed to disk, and renamed; the rename is the moment of
publishing (POSIX rename(2) is atomic within a file system). A variant that is replaced is swapped with its
successor in one step where the file system can do that, as Linux's own can. Elsewhere it is set aside first,
so for a moment it is missing, never mixed; a writer killed in that moment is made up for by the next one.

A reader that opens a folder's files one after another may still meet two generations of a replaced variant.
The digests in the manifest tell; it then reads again.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant.digests import digest_files
from flyweight.protos.variant.exchange import exchange
from flyweight.protos.variant.manifest import MANIFEST_FILE, write_manifest
from flyweight.protos.variant.names import CODED_FILE, MODEL_FILE, require_valid_name
from flyweight.protos.variant.staging import aside_folder, clean_up_after_others, staging_folder


def publish_variant(
    repository: Path, manifest: VariantManifest, fill: Callable[[Path], None], *, replace: bool = True
) -> Path:
    """Publish a variant and return its folder.

    Args:
        repository: the repository's root, made when it is not there.
        manifest: says the model's and the variant's name; its digests and format version are filled in here.
        fill: writes model.onnx, or model.onnx.fw in its place, and whatever else belongs into the folder it
            is given.
        replace: whether a variant of this name may be replaced.

    Raises:
        RepositoryError: a name is not allowed, the variant exists and may not be replaced, `fill` wrote
            no model, both forms of it or a link, or the repository cannot be written; what was there before
            is still there.
    """
    model = require_valid_name(manifest.model, "model")
    variant = require_valid_name(manifest.variant, "variant")
    target = repository / model / variant
    with _writing(target):
        _require_free(target, replace=replace)
        target.parent.mkdir(parents=True, exist_ok=True)
        clean_up_after_others(target.parent)
        staging = staging_folder(target)
        try:
            staging.mkdir()
            fill(staging)
            _require_complete(staging, target)
            del manifest.files[:]
            manifest.files.extend(digest_files(staging, exclude=frozenset({MANIFEST_FILE})))
            write_manifest(staging, manifest)
            _flush(staging)
            _move_into_place(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Of a rename the second name is the one that was to be made.
        name = error.filename2 or error.filename
        where = f": {name}" if name else ""
        raise RepositoryError(
            f"{target} cannot be written ({error.strerror or error}{where}); check the permissions and the "
            "free space of the repository."
        ) from error


def _require_free(target: Path, *, replace: bool) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise RepositoryError(
            f"{target} is not a folder, and is not replaced; remove it or choose another name."
        )
    if target.exists() and not replace:
        raise RepositoryError(f"{target} exists; choose another name or allow it to be replaced.")


def _require_complete(staging: Path, target: Path) -> None:
    given = [name for name in (MODEL_FILE, CODED_FILE) if (staging / name).is_file()]
    if not given:
        raise RepositoryError(
            f"{target} was given no {MODEL_FILE} and no {CODED_FILE}, so it is not published; write one."
        )
    if len(given) > 1:
        raise RepositoryError(f"{target} was given both {MODEL_FILE} and {CODED_FILE}; write one of them.")
    for path in staging.rglob("*"):
        if path.is_symlink():
            name = path.relative_to(staging)
            raise RepositoryError(f"{target} would hold the link {name}; write the file itself instead.")


def _move_into_place(staging: Path, target: Path) -> None:
    """Make `staging` the variant; what was there before it is gone, or is at the name `staging`."""
    if not target.exists():
        staging.rename(target)
    elif not exchange(staging, target):
        _replace_in_two_steps(staging, target)
    _flush_folder(target.parent)


def _replace_in_two_steps(staging: Path, target: Path) -> None:
    aside = aside_folder(staging)
    target.rename(aside)
    try:
        staging.rename(target)
    except OSError:
        aside.rename(target)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Bring a folder and its files to disk, so that a rename never outlives their contents."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        elif path.is_dir():
            _flush_folder(path)
    _flush_folder(folder)


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
