"""What earlier runs left in a model's folder, as far as a reader of this run's report must know."""

from collections.abc import Collection, Iterator
from pathlib import Path

from flyweight.protos.errors import ManifestError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import is_valid_name, read_manifest


def stale_note(folder: Path, baseline_sha256: str, made: Collection[str]) -> str | None:
    """Return a sentence on variants that were made from another baseline than the one that is there now.

    Args:
        folder: of the model.
        baseline_sha256: of the baseline's model.onnx.
        made: variants of this run, which are not meant.
    """
    stale = [
        name
        for name, manifest in _manifests(folder)
        if name not in made and manifest.lineage.parent_sha256 not in ("", baseline_sha256)
    ]
    if not stale:
        return None
    one = len(stale) == 1
    return (
        f"{', '.join(stale)} in {folder} {'was' if one else 'were'} made by an earlier run from another "
        f"baseline than this one and would be served beside it; remove {'it' if one else 'them'}, or "
        f"compress again with the {'recipe that makes it' if one else 'recipes that make them'}."
    )


def replaced_note(folder: Path, recipe: str) -> str | None:
    """Return a sentence where publishing into `folder` replaces a variant that another recipe made.

    Args:
        folder: of the variant.
        recipe: of the new one, as its manifest will have it.
    """
    manifest = _manifest(folder)
    if manifest is None or manifest.lineage.recipe in ("", recipe):
        return None
    return (
        f"{folder.name} replaced an earlier variant of this name that another recipe had made "
        f"({manifest.kind or 'unknown'})."
    )


def _manifests(folder: Path) -> Iterator[tuple[str, VariantManifest]]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        manifest = _manifest(path) if path.is_dir() and is_valid_name(path.name) else None
        if manifest is not None:
            yield path.name, manifest


def _manifest(folder: Path) -> VariantManifest | None:
    """Return a variant's manifest; None also where it is damaged, which is for the server to say."""
    try:
        return read_manifest(folder)
    except ManifestError:
        return None
