"""SHA-256 of a variant's files: written when it is published, checked before it is served."""

import hashlib
from pathlib import Path
from typing import Final

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import FileDigest, VariantManifest
from flyweight.protos.variant.names import is_inside_folder

# Large enough that hashing, not system calls, takes the time; small beside any model.
_CHUNK_BYTES: Final = 1 << 20
_ADVICE: Final = "publish the variant again, or wait until its copy is complete."


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in hexadecimal, reading it in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def digest_files(folder: Path, exclude: frozenset[str]) -> list[FileDigest]:
    """Return the digest of every file below `folder`, by path, but those named in `exclude`."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [(path.relative_to(folder).as_posix(), path) for path in paths]
    return [
        FileDigest(path=name, sha256=sha256_of(path), size_bytes=path.stat().st_size)
        for name, path in names
        if name not in exclude
    ]


def verify_digests(folder: Path, manifest: VariantManifest) -> None:
    """Check that every file the manifest lists is there, whole and unaltered.

    Raises:
        ManifestError: a file is missing, cannot be read, has another length or another digest, or lies
            outside the folder.
    """
    for entry in manifest.files:
        if not is_inside_folder(entry.path):
            raise ManifestError(
                f"{folder}: the manifest lists {entry.path!r}, which is outside the variant's folder; "
                "publish the variant again."
            )
        path = folder / entry.path
        try:
            _verify_file(folder, path, entry)
        except OSError as error:
            raise ManifestError(
                f"{path} cannot be read ({error.strerror}); check its permissions."
            ) from error


def _verify_file(folder: Path, path: Path, entry: FileDigest) -> None:
    if not path.is_file():
        raise ManifestError(f"{path} is listed in the manifest but is not there; {_ADVICE}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ManifestError(f"{path} leads out of the variant's folder; replace the link by the file.")
    size = path.stat().st_size
    if size != entry.size_bytes:
        raise ManifestError(f"{path} has {size} bytes where the manifest says {entry.size_bytes}; {_ADVICE}")
    digest = sha256_of(path)
    if digest != entry.sha256:
        raise ManifestError(
            f"{path} has SHA-256 {digest[:12]}… where the manifest says {entry.sha256[:12]}…; {_ADVICE}"
        )
