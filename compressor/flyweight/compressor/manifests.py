"""What a variant's manifest says, as an entry of the JSON document and as figures to compare."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flyweight.compressor.evaluate.document import PLAIN_FIGURES
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality
from flyweight.protos.manifest.v1.manifest_pb2 import LatencyMeasurement, VariantManifest


def describe_manifest(folder: Path, manifest: VariantManifest, baseline: VariantManifest) -> dict[str, Any]:
    """Return a variant's entry in the JSON document of a compression, as its manifest has it."""
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
        "passes": passes_of(manifest.lineage.recipe),
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


def passes_of(recipe: str) -> list[str]:
    """Return the names of a recipe's passes; none where a stranger wrote something else there."""
    try:
        document = yaml.safe_load(recipe)
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: a thirteenth month, say
        return []
    steps = document.get("passes") if isinstance(document, dict) else None
    named = [
        next(iter(step)) if isinstance(step, dict) and step else step
        for step in (steps if isinstance(steps, list) else ())
    ]
    return [name for name in named if isinstance(name, str)]


def evaluation_of(manifest: VariantManifest, entry: Mapping[str, Any]) -> Evaluation:
    """Return the figures of a manifest; intervals are those of the document's entry."""
    quality, footprint, described = manifest.quality, manifest.footprint, entry.get("quality")
    described = described if isinstance(described, dict) else {}
    return Evaluation(
        file_bytes=int(footprint.file_bytes),
        parameters=int(footprint.parameters),
        macs=int(footprint.macs) or None,
        quality=Quality(
            quality.metric,
            quality.value,
            quality.baseline_value,
            int(quality.samples),
            dict(quality.figures),
            interval=_pair(described.get("interval")),
            difference=_pair(described.get("difference_interval")),
        ),
        latency=tuple(_point(point, entry) for point in manifest.latencies),
        pss_bytes=int(footprint.pss_bytes),
    )


def _point(point: LatencyMeasurement, entry: Mapping[str, Any]) -> LatencyPoint:
    """Return a point of latency; of what no interval is known of, it has no ends."""
    described = entry.get("latency")
    at_batch = described.get(str(point.batch)) if isinstance(described, dict) else None
    low, high = _pair(at_batch.get("ratio_interval") if isinstance(at_batch, dict) else None) or (
        0.0,
        math.inf,
    )
    return LatencyPoint(
        batch=int(point.batch),
        p50_seconds=point.p50_seconds,
        p99_seconds=point.p99_seconds,
        baseline_p50_seconds=point.p50_seconds * point.speedup,
        speedup=point.speedup,
        speedup_low=low,
        speedup_high=high,
        runs=int(point.runs),
        threads=int(point.threads),
    )


def _pair(value: object) -> tuple[float, float] | None:
    """Return two numbers that a document has for an interval; anybody may have written it."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    low, high = value
    return (low, high) if isinstance(low, float | int) and isinstance(high, float | int) else None
