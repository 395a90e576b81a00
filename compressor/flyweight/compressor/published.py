"""The document of a compression, read back: from the manifests of what was published, and the last record.

Manifests are the truth about what is there. The record, which a run leaves beside the variants, adds what
they do not hold: variants that were refused and why, and details of those that are still as the run left
them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyweight.compressor.manifests import describe_manifest
from flyweight.compressor.processor import Processor
from flyweight.compressor.recommending import AS_FAST
from flyweight.compressor.records import entries_of, joined, read_record, speaks_of
from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import is_valid_name, read_manifest
from flyweight.protos.variant.lineage import lineage_faults


def describe_published(repository: Path, name: str) -> dict[str, Any]:
    """Return the JSON document of a model's variants in a repository.

    Raises:
        RepositoryError: there is no such model, or none of its variants has a manifest.
        ManifestError: a manifest is damaged.
    """
    folder = repository / name
    if not folder.is_dir():
        raise RepositoryError(
            f"The repository {repository} has no model {name!r}; check the path and --name."
        )
    found = {
        path.name: manifest
        for path in sorted(folder.iterdir())
        if path.is_dir() and is_valid_name(path.name) and (manifest := read_manifest(path)) is not None
    }
    if not found:
        raise RepositoryError(f"No variant in {folder} has a manifest; publish with `flyweight compress`.")
    originals = [variant for variant, manifest in found.items() if not manifest.lineage.parent]
    baseline = (originals or list(found))[0]
    base, record = found[baseline], read_record(repository, name) or {}
    order = [baseline, *(variant for variant in found if variant != baseline)]
    variants = [describe_manifest(folder / variant, found[variant], base) for variant in order]
    ours = _of_this_baseline(found, baseline)
    recommended = _recorded_recommendation(record, base.lineage.data_sha256, ours)
    recommended = recommended or _recommended(ours, baseline)
    return {
        "model": name,
        "repository": str(repository),
        "recommended": recommended,
        "recommended_reason": _reason(record, recommended),
        "baseline": baseline,
        "data": {
            "samples": int(base.quality.samples),
            "digest": base.lineage.data_sha256,
            "quality_metric": base.quality.metric,
        },
        "environment": _environment(base),
        "variants": [_with_faults(each) for each in _with_record(variants, record, base.lineage.data_sha256)],
        "search": record.get("search") if speaks_of(record, base.lineage.data_sha256) else None,
    }


def _with_record(
    variants: list[dict[str, Any]], record: Mapping[str, Any], data: str
) -> list[dict[str, Any]]:
    """Return the variants with what the record adds, and after them those that were refused.

    A record of a run on other data speaks of other figures, and adds nothing.
    """
    if not speaks_of(record, data):
        return variants
    recorded = entries_of(record)
    told = [joined(variant, recorded.get(variant["name"])) for variant in variants]
    present = {variant["name"] for variant in variants}
    refused = [
        {**entry, "path": None}
        for entry in recorded.values()
        if entry["name"] not in present and entry.get("published") is False
    ]
    return [*told, *refused]


def _with_faults(variant: dict[str, Any]) -> dict[str, Any]:
    """Return a variant with what is wrong with its files or its lineage before its other notes."""
    if variant["path"] is None:
        return variant
    notes = variant.get("notes")
    faults = lineage_faults(Path(variant["path"]))
    return {**variant, "notes": [*faults, *(notes if isinstance(notes, list) else ())]}


def _recorded_recommendation(
    record: Mapping[str, Any], data: str, found: Mapping[str, VariantManifest]
) -> str | None:
    """Return what the last run recommended, which knew its user's limits; None where that is no longer so."""
    entries = entries_of(record) if speaks_of(record, data) else {}
    # What was published since may be better.
    if any(
        name not in entries or entries[name].get("bytes") != manifest.footprint.file_bytes
        for name, manifest in found.items()
    ):
        return None
    recommended = record.get("recommended")
    return recommended if isinstance(recommended, str) and recommended in found else None


def _reason(record: Mapping[str, Any], recommended: str) -> str:
    reason = record.get("recommended_reason")
    return reason if record.get("recommended") == recommended and isinstance(reason, str) else ""


def _of_this_baseline(found: dict[str, VariantManifest], baseline: str) -> dict[str, VariantManifest]:
    """Return the variants whose figures are against the baseline that is there now.

    Those that an earlier run made from another one are faster or better than that other one.
    """
    digests = {"", *(file.sha256 for file in found[baseline].files)}
    return {
        name: manifest
        for name, manifest in found.items()
        if name == baseline or manifest.lineage.parent_sha256 in digests
    }


def _recommended(found: dict[str, VariantManifest], baseline: str) -> str:
    """Return the fastest at the smallest batch; of those within 5 percent the smallest."""
    speedups = {
        name: min(manifest.latencies, key=lambda point: point.batch).speedup if manifest.latencies else 0.0
        for name, manifest in found.items()
    }
    fastest = max(speedups.values())
    equals = [name for name, speedup in speedups.items() if speedup >= fastest / AS_FAST]
    return min(equals, key=lambda name: (found[name].footprint.file_bytes, name != baseline))


def _environment(manifest: VariantManifest) -> dict[str, Any]:
    environment = manifest.environment
    processor = Processor(environment.cpu, tuple(environment.instruction_sets), environment.cores)
    return {
        "cpu": processor.name,
        "isa": processor.isa,
        "cores": processor.cores,
        "threads": manifest.session.intra_op_threads,
        "onnxruntime": manifest.lineage.tools.get("onnxruntime"),
        "flyweight": manifest.lineage.tools.get("flyweight"),
    }
