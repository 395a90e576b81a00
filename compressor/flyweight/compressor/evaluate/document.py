"""What was measured, as the parts of the JSON document; figures that were not taken are None."""

from dataclasses import asdict
from typing import Any, Final

from flyweight.compressor.evaluate.energy import Energy
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.intervals import Interval
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.evaluate.robustness import Robustness
from flyweight.compressor.evaluate.stability import Stability
from flyweight.compressor.safety.triggers import Concentration, TriggerCheck

PLAIN_FIGURES: Final = ("accuracy", "precision", "recall", "f1", "r2", "agreement")


def describe_evaluation(found: Evaluation | None, baseline: Evaluation) -> dict[str, Any]:
    """Return everything that was measured of a variant, by key."""
    load = found.load if found else None
    return {
        "bytes": found and found.file_bytes,
        "bytes_ratio": found and found.file_bytes / baseline.file_bytes,
        "compressed_bytes": found and found.compressed_bytes,
        "parameters": found and found.parameters,
        "nonzero_parameters": found and found.nonzero_parameters,
        "bits_per_weight": found and found.bits_per_weight,
        "macs": found and found.macs,
        "macs_unknown": (found and found.macs_unknown) or None,
        "quality": describe_quality(found.quality if found else None, baseline.quality.metric),
        "latency": {str(point.batch): describe_point(point) for point in (found.latency if found else ())},
        "latency_grid": [
            {"batch": point.batch, **describe_point(point)} for point in (found.latency_grid if found else ())
        ],
        "load_ms": load and load.seconds * 1e3,
        "load_ratio": load and load.ratio,
        "memory": {"pss_bytes": found and found.pss_bytes},
        "energy_mj": found.energy.joules * 1e3 if found and found.energy else None,
        "energy": describe_energy(found.energy if found else None),
        **describe_examination(found),
    }


def describe_quality(quality: Quality | None, metric: str) -> dict[str, Any]:
    """Return the quality part of a variant's description."""
    figures = quality.figures if quality else dict[str, float]()
    test, changes = (quality.mcnemar, quality.churn) if quality else (None, None)
    return {
        "metric": metric,
        "value": quality and quality.value,
        "baseline_value": quality and quality.baseline_value,
        "delta": quality and quality.delta,
        **{name: figures.get(name) for name in PLAIN_FIGURES},
        "samples": quality and quality.samples,
        "interval": _pair(quality.interval if quality else None),
        "baseline_interval": _pair(quality.baseline_interval if quality else None),
        "difference_interval": _pair(quality.difference if quality else None),
        "mcnemar": test and {"p_value": test.p_value, "better": test.better, "worse": test.worse},
        "churn": changes and changes.changed,
        "flipped": changes and changes.flipped,
        "ece": quality and quality.ece,
        "baseline_ece": quality and quality.baseline_ece,
        "ece_of": (quality and quality.ece_of) or None,
        "per_class": [
            {
                "class": figures.label,
                **{key: value for key, value in asdict(figures).items() if key != "label"},
            }
            for figures in (quality.per_class if quality else ())
        ],
    }


def describe_point(point: LatencyPoint) -> dict[str, Any]:
    """Return one point of latency."""
    return {
        "threads": point.threads,
        "p50_ms": point.p50_seconds * 1e3,
        "p99_ms": point.p99_seconds * 1e3,
        "ratio": point.speedup,
        "ratio_interval": [point.speedup_low, point.speedup_high],
    }


def describe_energy(energy: Energy | None) -> dict[str, Any] | None:
    """Return how energy was estimated."""
    if energy is None:
        return None
    return {"estimate": True, "method": energy.method, "cpu_ms": energy.cpu_seconds * 1e3}


def describe_examination(found: Evaluation | None) -> dict[str, Any]:
    """Return what a closer look showed."""
    robustness = found.robustness if found else None
    stability = found.stability if found else None
    trigger = found.trigger if found else None
    return {
        "robustness": robustness and _robustness(robustness),
        "robustness_measured": robustness and _robustness_measured(robustness),
        "stability": stability and _stability(stability),
        "trigger": trigger and _trigger(trigger),
    }


def _robustness(found: Robustness) -> dict[str, dict[str, float | None]]:
    return {
        name: {str(severity): kept for severity, kept in sorted(by_severity.items())}
        for name, by_severity in found.kept.items()
    }


def _robustness_measured(found: Robustness) -> dict[str, Any]:
    return {
        "measure": found.measure,
        "samples": found.samples,
        "worst_kept": found.worst,
        "quality": {
            name: {str(severity): value for severity, value in sorted(by_severity.items())}
            for name, by_severity in found.quality.items()
        },
        "note": found.note,
    }


def _stability(found: Stability) -> dict[str, Any]:
    return asdict(found)


def _trigger(found: TriggerCheck) -> dict[str, Any]:
    return {
        "passed": not found.findings,
        "findings": [_concentration(finding) for finding in found.findings],
        "worst": found.worst and _concentration(found.worst),
        "patches": found.patches,
        "samples": found.samples,
        "threshold": found.threshold,
        "note": found.note,
    }


def _concentration(found: Concentration) -> dict[str, Any]:
    described = {key: value for key, value in asdict(found).items() if key != "label"}
    return {**described, "class": found.label, "excess": found.excess}


def _pair(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)
