"""manifest.json: reading it with care, writing it as protobuf's JSON form."""

import json
from pathlib import Path
from typing import Final

from google.protobuf import json_format

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest

MANIFEST_FILE: Final = "manifest.json"
FORMAT_VERSION: Final = 1

# A manifest holds no tensors; one of this size is not a manifest, and is not read into memory.
_LARGEST_MANIFEST_BYTES: Final = 4 << 20


def read_manifest(folder: Path) -> VariantManifest | None:
    """Read the manifest of a variant's folder; None when it has none, as in a plain Triton repository.

    Raises:
        ManifestError: the file is unreadable, is not a manifest, or is of a later format.
    """
    path = folder / MANIFEST_FILE
    try:
        size = path.stat().st_size
        if size > _LARGEST_MANIFEST_BYTES:
            raise ManifestError(
                f"{path} has {size} bytes, too many for a manifest; publish the variant again."
            )
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{path} cannot be read ({error.strerror}); check its permissions.") from error
    return _parse(path, text)


def _parse(path: Path, text: bytes) -> VariantManifest:
    try:
        document = json.loads(text)
        _require_known_format(path, document)
        # A later writer may say more than we know; what we do not know we leave alone.
        return json_format.ParseDict(document, VariantManifest(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ManifestError(f"{path} is not a manifest ({reason}); publish the variant again.") from error


def _require_known_format(path: Path, document: object) -> None:
    """Raise if this code cannot know what the document means, before its parts are read."""
    if not isinstance(document, dict):
        raise ManifestError(f"{path} is not a manifest (it holds no object); publish the variant again.")
    version = document.get("format_version", document.get("formatVersion"))
    if version != FORMAT_VERSION:
        said = "no format version" if version is None else f"format version {version}"
        raise ManifestError(
            f"{path} has {said}, and this flyweight reads {FORMAT_VERSION}; upgrade flyweight or publish the "
            "variant again."
        )


def write_manifest(folder: Path, manifest: VariantManifest) -> None:
    """Write `manifest` into `folder`, with the format version this code knows."""
    manifest.format_version = FORMAT_VERSION
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, indent=2)
    (folder / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")
