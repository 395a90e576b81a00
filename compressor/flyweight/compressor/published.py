"""The document of a compression, read back from the manifests of what was published."""

from pathlib import Path
from typing import Any

import yaml

from flyweight.compressor.processor import Processor
from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import VariantManifest
from flyweight.protos.variant import is_valid_name, read_manifest


def describe_published(repository: Path, name: str) -> dict[str, Any]:
    """Return the JSON document of a model's variants in a repository.

    What manifests do not hold, such as variants that were not published, is left out.

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
    base = found[baseline]
    order = [baseline, *(variant for variant in found if variant != baseline)]
    return {
        "model": name,
        "repository": str(repository),
        "recommended": _recommended(found, baseline),
        "baseline": baseline,
        "data": {
            "samples": int(base.quality.samples),
            "digest": base.lineage.data_sha256,
            "quality_metric": base.quality.metric,
        },
        "environment": _environment(base),
        "variants": [_variant(folder / variant, found[variant], base) for variant in order],
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
    quality, footprint, figures = manifest.quality, manifest.footprint, manifest.quality.figures
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
        "quality": {
            "metric": quality.metric,
            "value": quality.value,
            "baseline_value": quality.baseline_value,
            "delta": quality.value - quality.baseline_value,
            **{
                name: figures.get(name)
                for name in ("accuracy", "precision", "recall", "f1", "r2", "agreement")
            },
            "samples": int(quality.samples),
        },
        "latency": {
            str(point.batch): {
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


def _passes(recipe: str) -> list[str]:
    """Return the names of a recipe's passes; none where a stranger wrote something else there."""
    try:
        document = yaml.safe_load(recipe)
    except yaml.YAMLError:
        return []
    steps = document.get("passes") if isinstance(document, dict) else None
    return [step if isinstance(step, str) else str(next(iter(step))) for step in steps or [] if step]
