"""What a compression came to: every variant, published or not, and the JSON document that says so."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.gate import Verdict
from flyweight.compressor.processor import this_processor


@dataclass(frozen=True, slots=True)
class VariantOutcome:
    """One variant.

    Attributes:
        name: its folder, if it was published.
        kind: what makes it differ from the baseline, in a few words.
        verdict: whether it was published and why.
        evaluation: its figures; None when it could not be made or measured.
        path: its folder; None when it was not published.
        passes: their names, in order.
        notes: sentences of the passes and the bench.
        seconds: that making and measuring it took.
    """

    name: str
    kind: str
    verdict: Verdict
    evaluation: Evaluation | None = None
    path: Path | None = None
    passes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class CompressionReport:
    """Everything there is to tell of a compression; the baseline is the first variant."""

    model: str
    repository: Path
    recommended: str
    samples: int
    data_digest: str
    threads: int
    variants: tuple[VariantOutcome, ...]

    @property
    def baseline(self) -> VariantOutcome:
        """The uncompressed model."""
        return self.variants[0]

    def variant(self, name: str) -> VariantOutcome:
        """Return the variant called `name`; a KeyError if there is none."""
        return {variant.name: variant for variant in self.variants}[name]

    def document(self) -> dict[str, Any]:
        """Return the document that `flyweight compress --json` prints."""
        base = self.baseline.evaluation
        assert base is not None, "a compression without a measured baseline raises"
        return {
            "model": self.model,
            "repository": str(self.repository),
            "recommended": self.recommended,
            "baseline": self.baseline.name,
            "data": {
                "samples": self.samples,
                "digest": self.data_digest,
                "quality_metric": base.quality.metric,
            },
            "environment": describe_environment(self.threads),
            "variants": [_describe(variant, base) for variant in self.variants],
        }


def describe_environment(threads: int) -> dict[str, Any]:
    """Return where the figures were taken."""
    processor = this_processor()
    return {
        "cpu": processor.name,
        "isa": processor.isa,
        "cores": processor.cores,
        "threads": threads,
        "onnxruntime": version("onnxruntime"),
        "flyweight": version("flyweight"),
    }


def _describe(variant: VariantOutcome, baseline: Evaluation) -> dict[str, Any]:
    found = variant.evaluation
    return {
        "name": variant.name,
        "kind": variant.kind,
        "path": None if variant.path is None else str(variant.path),
        "published": variant.verdict.published,
        "reason": variant.verdict.reason,
        "bytes": found and found.file_bytes,
        "bytes_ratio": found and found.file_bytes / baseline.file_bytes,
        "parameters": found and found.parameters,
        "macs": found and found.macs,
        "quality": describe_quality(found.quality if found else None, baseline.quality.metric),
        "latency": {str(point.batch): _describe_point(point) for point in (found.latency if found else ())},
        "memory": {"pss_bytes": found and found.pss_bytes},
        "passes": list(variant.passes),
        "notes": list(variant.notes),
        "seconds": round(variant.seconds, 3),
    }


def describe_quality(quality: Quality | None, metric: str) -> dict[str, Any]:
    """Return the quality part of a variant's description; figures that were not taken are None."""
    figures = quality.figures if quality else dict[str, float]()
    return {
        "metric": metric,
        "value": quality and quality.value,
        "baseline_value": quality and quality.baseline_value,
        "delta": quality and quality.delta,
        **{name: figures.get(name) for name in ("accuracy", "precision", "recall", "f1", "r2", "agreement")},
        "samples": quality and quality.samples,
    }


def _describe_point(point: LatencyPoint) -> dict[str, float]:
    return {
        "p50_ms": point.p50_seconds * 1e3,
        "p99_ms": point.p99_seconds * 1e3,
        "ratio": point.speedup,
    }
