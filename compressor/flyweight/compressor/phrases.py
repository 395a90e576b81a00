"""Figures as the sentences of a verdict and of a recommendation tell them."""

import math

from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality

# Nobody chooses by less, even where it was measured.
_WITHIN = 1.01
# Under both, two readings of one model's memory differ by as much.
_MORE_MEMORY = 1.05
_MORE_MEMORY_BYTES = 100_000


def quality_phrase(variant: Evaluation) -> str:
    """Return the figure that decides, beside the baseline's."""
    quality = variant.quality
    if quality.metric == "agreement":
        return f"agreement with the baseline {quality.value:.4f}"
    return f"{metric_phrase(quality.metric)} {quality.value:.4f} against {quality.baseline_value:.4f}"


def metric_phrase(metric: str) -> str:
    """Return a metric's name in a sentence."""
    return {"agreement": "agreement with the baseline", "r2": "R2"}.get(metric, metric)


def doubt_phrase(quality: Quality, allowed: float) -> str:
    """Return the interval of the change, and whether it leaves open on which side of the limit it lies."""
    interval = change_interval(quality)
    if interval is None:
        return ""
    low, high = interval
    text = f" (95% interval of the change {low:+.4f} to {high:+.4f}"
    if low < -allowed < high:
        text += f"; {quality.samples} samples cannot tell it from the limit of {-allowed:+.4f}, more would"
    return text + ")"


def change_interval(quality: Quality) -> tuple[float, float] | None:
    """Return the interval of what was gained: of the paired difference, or of the agreement less 1."""
    if quality.difference is not None:
        return quality.difference
    if quality.metric == "agreement" and quality.interval is not None:
        return quality.interval[0] - 1, quality.interval[1] - 1
    return None


def knows_interval(point: LatencyPoint) -> bool:
    """Tell whether the speed's interval was measured; a manifest does not keep it."""
    return math.isfinite(point.speedup_high)


def as_fast(point: LatencyPoint) -> bool:
    """Tell whether the speed's interval includes the baseline's: no difference could be measured."""
    return knows_interval(point) and point.speedup_low <= 1 <= point.speedup_high


def interval_phrase(point: LatencyPoint) -> str:
    """Return the interval of the speed, in brackets; empty where it is not known."""
    if not knows_interval(point):
        return ""
    return f" (95% interval {point.speedup_low:.2f} to {point.speedup_high:.2f})"


def pace_phrase(variant: Evaluation) -> str:
    """Return how fast a variant is where that is not what it gains."""
    first = variant.latency[0]
    if all(as_fast(point) for point in variant.latency):
        return f"no measurable difference in speed{interval_phrase(first)}"
    if all(1 / _WITHIN < point.speedup < _WITHIN for point in variant.latency):
        return f"the same speed within 1%{interval_phrase(first)}"
    worst = min(variant.latency, key=lambda point: point.speedup)
    return f"{worst.speedup:.2f} times the speed at batch {worst.batch}{interval_phrase(worst)}"


def memory_phrase(variant: Evaluation, baseline: Evaluation) -> str | None:
    """Return by how much more memory a variant needs than the baseline; None where it does not."""
    more = variant.pss_bytes - baseline.pss_bytes
    if more < _MORE_MEMORY_BYTES or variant.pss_bytes < _MORE_MEMORY * baseline.pss_bytes:
        return None
    share = (
        f"{variant.pss_bytes / baseline.pss_bytes:.2f} times the memory" if baseline.pss_bytes else "memory"
    )
    return f"needs {share} ({variant.pss_bytes / 1e6:.1f} MB instead of {baseline.pss_bytes / 1e6:.1f} MB)"


def bytes_ratio(variant: Evaluation, baseline: Evaluation) -> float:
    """Return a variant's bytes over the baseline's."""
    return variant.file_bytes / baseline.file_bytes


def milliseconds(seconds: float) -> str:
    """Return a time with three digits."""
    return f"{seconds * 1e3:.3g} ms"


def sentence(parts: list[str]) -> str:
    """Return parts as one sentence."""
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."
