"""What earlier runs left in a model's folder, as far as a reader of this run's report must know."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from flyweight.compressor.gate import Verdict
from flyweight.compressor.manifests import describe_manifest, evaluation_of
from flyweight.compressor.outcome import VariantOutcome
from flyweight.compressor.records import entries_of, joined
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


def earlier_variants(
    folder: Path, baseline: VariantManifest, known: Collection[str], record: Mapping[str, Any]
) -> tuple[VariantOutcome, ...]:
    """Return the variants that earlier runs made from the baseline that is there now, as they recorded them.

    Args:
        folder: of the model.
        baseline: the manifest of the baseline.
        known: names that this run speaks of.
        record: the document of the run before this one, for details that manifests do not hold.
    """
    digests = {file.sha256 for file in baseline.files}
    return tuple(
        _earlier(folder / name, manifest, baseline, entries_of(record).get(name))
        for name, manifest in _manifests(folder)
        if name not in known and manifest.lineage.parent_sha256 in digests
    )


def _earlier(
    folder: Path, manifest: VariantManifest, baseline: VariantManifest, entry: Mapping[str, Any] | None
) -> VariantOutcome:
    described = joined(describe_manifest(folder, manifest, baseline), entry)
    reason = f"Published by an earlier run ({manifest.created or 'at an unknown time'}), with its figures"
    if manifest.lineage.data_sha256 != baseline.lineage.data_sha256:
        reason += ", which are on other data"
    verdict = Verdict(published=True, reason=f"{reason}.")
    return VariantOutcome(
        name=manifest.variant,
        kind=manifest.kind,
        verdict=verdict,
        evaluation=evaluation_of(manifest, described),
        path=folder,
        passes=tuple(described["passes"]),
        earlier={**described, "reason": verdict.reason, "earlier": True},
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
