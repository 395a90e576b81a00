"""The document of a compression, read back: from the manifests of what was published, and the last record.

Manifests are the truth about what is there. The record, which a run leaves beside the variants, adds what
they do not hold: variants that were refused and why, and details of those that are still as the run left
    them.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from flyweight.compressor.evaluate.document import PLAIN_FIGURES
from flyweight.compressor.processor import Processor
from flyweight.compressor.records import read_record
from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import is_valid_name, read_manifest

# Of a document; what else the record holds was written by a run that is over, and stays as it is.
_ABOUT_THE_FOLDER: Final = ("path", "published")


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
    variants = [_variant(folder / variant, found[variant], base) for variant in order]
    recommended = _recommended(_of_this_baseline(found, baseline), baseline)
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
        "variants": _with_record(variants, record, base.lineage.data_sha256),
        "search": record.get("search") if _speaks_of(record, base.lineage.data_sha256) else None,
    }


def _speaks_of(record: Mapping[str, Any], data: str) -> bool:
    """Tell whether a record is of a run on these data; of others it has other figures."""
    described = record.get("data")
    return isinstance(described, dict) and described.get("digest") == data


def _with_record(
    variants: list[dict[str, Any]], record: Mapping[str, Any], data: str
) -> list[dict[str, Any]]:
    """Return the variants with what the record adds, and after them those that were refused.

    A record of a run on other data speaks of other figures, and adds nothing.
    """
    if not _speaks_of(record, data):
        return variants
    recorded = {entry["name"]: entry for entry in _entries(record)}
    told = [_joined(variant, recorded.get(variant["name"])) for variant in variants]
    present = {variant["name"] for variant in variants}
    refused = [
        {**entry, "path": None}
        for entry in recorded.values()
        if entry["name"] not in present and entry.get("published") is False
    ]
    return [*told, *refused]


def _entries(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield those variants of a record that look like one; anybody may have written the file."""
    variants = record.get("variants")
    for entry in variants if isinstance(variants, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("name"), str):
            yield entry


def _joined(variant: dict[str, Any], entry: Mapping[str, Any] | None) -> dict[str, Any]:
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
    equals = [name for name, speedup in speedups.items() if speedup >= fastest / 1.05]
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


def _variant(folder: Path, manifest: VariantManifest, baseline: VariantManifest) -> dict[str, Any]:
    footprint = manifest.footprint
    return {
        "name": manifest.variant,
        "kind": manifest.kind,
        "path": str(folder),
        "published": True,
        "reason": f"Published {manifest.created}.",
        "bytes": int(footprint.file_bytes),
        "bytes_ratio": footprint.file_bytes / (baseline.footprint.file_bytes or 1),
        "parameters": int(footprint.parameters),
        "macs": int(footprint.macs) or None,
        "quality": _quality(manifest),
        "latency": {
            str(point.batch): {
                "threads": int(point.threads),
                "p50_ms": point.p50_seconds * 1e3,
                "p99_ms": point.p99_seconds * 1e3,
                "ratio": point.speedup,
            }
            for point in manifest.latencies
        },
        "memory": {"pss_bytes": int(footprint.pss_bytes)},
        "passes": _passes(manifest.lineage.recipe),
        "notes": [],
        "seconds": None,
    }


def _quality(manifest: VariantManifest) -> dict[str, Any]:
    """Return the quality part, intervals and tests from the map of figures."""
    quality = manifest.quality
    figures = dict(quality.figures)

    def interval(name: str) -> list[float] | None:
        ends = [figures.get(f"{name}_low"), figures.get(f"{name}_high")]
        return None if None in ends else [end for end in ends if end is not None]

    test = {
        "p_value": figures.get("mcnemar_p"),
        "better": int(figures.get("mcnemar_better", 0)),
        "worse": int(figures.get("mcnemar_worse", 0)),
    }
    return {
        "metric": quality.metric,
        "value": quality.value,
        "baseline_value": quality.baseline_value,
        "delta": quality.value - quality.baseline_value,
        **{name: figures.get(name) for name in PLAIN_FIGURES},
        "samples": int(quality.samples),
        "interval": interval(quality.metric),
        "baseline_interval": interval(f"baseline_{quality.metric}"),
        "difference_interval": interval("difference"),
        "mcnemar": test if "mcnemar_p" in figures else None,
        **{name: figures.get(name) for name in ("churn", "flipped", "ece", "baseline_ece")},
    }


def _passes(recipe: str) -> list[str]:
    """Return the names of a recipe's passes; none where a stranger wrote something else there."""
    try:
        document = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return []
    steps = document.get("passes") if isinstance(document, dict) else None
    return [step if isinstance(step, str) else str(next(iter(step))) for step in steps or [] if step]
