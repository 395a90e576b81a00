"""Do no harm: a variant is published only if it is better somewhere and not worse anywhere than was asked.

The decision is a pure function of two evaluations and the limits, and its reason is a sentence with figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import NARROW, LatencyPoint
from flyweight.compressor.evaluate.quality import Quality

# One part in a hundred of the baseline's accuracy, or R2, is what most users would call the same model.
_RELATIVE_DROP: Final = 0.01
# Not every changed answer is a worse one, so twice as many may change where no labels say which.
_AGREEMENT_DROP: Final = 0.02
# Under this, memory differences are those of code pages and allocator, not of the model.
_SMALLEST_MEMORY_GAIN_BYTES: Final = 1 << 20
# Of a call through a server this is not two parts in a hundred. Models that run for microseconds differ by as
# much from one session to the next, by where their weights happen to lie.
_UNNOTICED_SECONDS: Final = 5e-6
# Who is within this of the fastest is as fast.
_AS_FAST: Final = 1.05
_EPSILON: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant may cost.

    Attributes:
        max_drop: of the deciding quality figure, relative to the baseline's: 0.01 lets an accuracy of 0.90
            fall to 0.891. None takes 0.01 for accuracy and R2, and 0.02 for agreement, where the baseline's
            is 1.
        max_slowdown: its median latency over the baseline's, at every batch size. The default forgives what
            two runs of one model differ by on a busy machine.
        max_bytes_ratio: its file's bytes over the baseline's.
        min_gain: by which fraction it must be better on one axis at least: latency, file or memory.
    """

    max_drop: float | None = None
    max_slowdown: float = 1.1
    max_bytes_ratio: float = 1.0
    min_gain: float = 0.05

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            RecipeError: one has no meaning.
        """
        if self.max_drop is not None and not self.max_drop >= 0:
            raise RecipeError(f"The largest drop of quality is a number of at least 0, not {self.max_drop}.")
        for name, value in (("slowdown", self.max_slowdown), ("bytes ratio", self.max_bytes_ratio)):
            if not value > 0:
                raise RecipeError(f"The largest {name} is a number above 0, not {value}.")
        if not 0 <= self.min_gain < 1:
            raise RecipeError(f"The smallest gain is at least 0 and below 1, not {self.min_gain}.")

    def drop(self, metric: str, baseline_value: float) -> float:
        """Return how much of `metric` may be lost, in its own units."""
        if self.max_drop is not None:
            return self.max_drop * abs(baseline_value)
        return (_AGREEMENT_DROP if metric == "agreement" else _RELATIVE_DROP) * abs(baseline_value)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a variant is published, and why or why not."""

    published: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The variant to use, and a sentence that says why."""

    name: str
    reason: str


def judge(variant: Evaluation, baseline: Evaluation, limits: Limits) -> Verdict:
    """Decide whether a variant is published."""
    found = (
        _worse(variant, limits),
        _slower(variant, limits),
        _bigger(variant, baseline, limits),
        _triggered(variant),
    )
    harms = [harm for harm in found if harm is not None] or _without_use(variant, baseline)
    if harms:
        return Verdict(published=False, reason=_sentence(harms))
    gains = _gains(variant, baseline, limits.min_gain)
    if not gains:
        return Verdict(
            published=False,
            reason=f"Not better by {limits.min_gain:.0%} in latency, file size or memory: "
            f"{variant.speedup:.2f} times the speed, {_bytes_ratio(variant, baseline):.0%} of the bytes.",
        )
    return Verdict(published=True, reason=_sentence([*gains, _kept(variant, limits)]))


def recommend(baseline: str, evaluations: Mapping[str, Evaluation]) -> str:
    """Return the name of the variant to use; see `recommendation`."""
    return recommendation(baseline, evaluations).name


def recommendation(baseline: str, evaluations: Mapping[str, Evaluation]) -> Recommendation:
    """Return the variant to use: of the published, the fastest at the smallest batch; of equals the smallest.

    Equal is who is within 5 percent of the fastest. `evaluations` holds the baseline and what was published.
    """
    fastest = max(evaluations, key=lambda name: evaluations[name].speedup)
    least = evaluations[fastest].speedup / _AS_FAST
    equals = [name for name, evaluation in evaluations.items() if evaluation.speedup >= least]
    name = min(equals, key=lambda name: (evaluations[name].file_bytes, name != baseline))
    if name == baseline:
        return Recommendation(name, _why_baseline(baseline, evaluations))
    return Recommendation(name, _why(name, fastest, baseline, evaluations))


def _why(name: str, fastest: str, reference: str, evaluations: Mapping[str, Evaluation]) -> str:
    chosen, baseline = evaluations[name], evaluations[reference]
    batch = chosen.latency[0].batch
    same = 1 / _AS_FAST < chosen.speedup < _AS_FAST
    speed = "the same speed" if same else f"{chosen.speedup:.2f} times the speed at batch {batch}"
    size = f"{_bytes_ratio(chosen, baseline):.0%} of the file"
    parts = [f"{size} at {speed}" if same else f"{speed} and {size}", _quality(chosen)]
    if fastest not in (name, reference):
        parts.append(f"as fast as {fastest} within 5% and smaller")
    elif fastest == name and len(evaluations) > 2:
        parts.append("the fastest that was published")
    return _sentence(parts)


def _why_baseline(baseline: str, evaluations: Mapping[str, Evaluation]) -> str:
    others = [name for name in evaluations if name != baseline]
    if not others:
        return "Nothing else was published, because nothing was better without doing harm."
    best = max(others, key=lambda name: evaluations[name].speedup)
    return (
        f"No other variant is as fast: the fastest of them, {best}, has "
        f"{evaluations[best].speedup:.2f} times its speed; take that where its file or memory counts more."
    )


def _worse(variant: Evaluation, limits: Limits) -> str | None:
    quality = variant.quality
    allowed = limits.drop(quality.metric, quality.baseline_value)
    if -quality.delta <= allowed + _EPSILON:
        return None
    return (
        f"{_metric(quality.metric)} is {quality.value:.4f} instead of {quality.baseline_value:.4f}, "
        f"a loss of {-quality.delta:.4f} where {allowed:.4g} is allowed{_doubt(quality, allowed)}"
    )


def _slower(variant: Evaluation, limits: Limits) -> str | None:
    slow = [point for point in variant.latency if _is_slower(point, limits.max_slowdown)]
    if not slow:
        return None
    worst = min(slow, key=lambda point: point.speedup)
    return (
        f"at batch {worst.batch} a run takes {_ms(worst.p50_seconds)} instead of "
        f"{_ms(worst.baseline_p50_seconds)}, {1 / worst.speedup:.2f} times as long where "
        f"{limits.max_slowdown:g} is allowed"
    )


def _is_slower(point: LatencyPoint, most: float) -> bool:
    """Tell whether a point is beyond the limit, so that the same variant gets the same verdict every time.

    With a narrow interval the whole of it must be beyond. A wide one is evidence of nothing, and leaving it
    at that would publish whatever was measured badly: then the point estimate decides.
    """
    if point.p50_seconds - point.baseline_p50_seconds < _UNNOTICED_SECONDS:
        return False
    surest = point.speedup_high if point.interval_width <= NARROW else point.speedup
    return surest * most < 1


def _bigger(variant: Evaluation, baseline: Evaluation, limits: Limits) -> str | None:
    ratio = _bytes_ratio(variant, baseline)
    if ratio <= limits.max_bytes_ratio + _EPSILON:
        return None
    return (
        f"the file has {variant.file_bytes} bytes instead of {baseline.file_bytes}, {ratio:.2f} times as "
        f"many where {limits.max_bytes_ratio:g} is allowed"
    )


def _triggered(variant: Evaluation) -> str | None:
    if variant.trigger is None or not variant.trigger.findings:
        return None
    worst = variant.trigger.findings[0]
    return (
        f"compression switched on what looks like a backdoor: a {worst.patch}, moves "
        f"{worst.variant_rate:.0%} of {worst.samples} samples to class {worst.label}, and "
        f"{worst.baseline_rate:.0%} in the baseline"
    )


def _without_use(variant: Evaluation, baseline: Evaluation) -> list[str]:
    """Return why a variant is never published, however wide the limits: it is slower and bigger."""
    ratio = _bytes_ratio(variant, baseline)
    if ratio <= 1 + _EPSILON or any(point.speedup_high >= 1 for point in variant.latency):
        return []
    return [f"both slower ({variant.speedup:.2f} times the speed) and bigger ({ratio:.2f} times the bytes)"]


def _gains(variant: Evaluation, baseline: Evaluation, smallest: float) -> list[str]:
    gains = []
    # The whole confidence interval must clear the margin: a lucky turn is not a gain.
    faster = [point for point in variant.latency if point.speedup_low * (1 - smallest) >= 1]
    if faster:
        best = max(faster, key=lambda point: point.speedup)
        gains.append(
            f"{best.speedup:.2f} times as fast at batch {best.batch} "
            f"({_ms(best.p50_seconds)} instead of {_ms(best.baseline_p50_seconds)})"
        )
    ratio = _bytes_ratio(variant, baseline)
    if ratio <= 1 - smallest:
        gains.append(f"{ratio:.0%} of the bytes")
    saved = baseline.pss_bytes - variant.pss_bytes
    if saved >= max(smallest * baseline.pss_bytes, _SMALLEST_MEMORY_GAIN_BYTES):
        gains.append(f"{saved / 1e6:.1f} MB less memory")
    return gains


def _kept(variant: Evaluation, limits: Limits) -> str:
    quality = variant.quality
    return _quality(variant) + _doubt(quality, limits.drop(quality.metric, quality.baseline_value))


def _quality(variant: Evaluation) -> str:
    quality = variant.quality
    if quality.metric == "agreement":
        return f"agreement with the baseline {quality.value:.4f}"
    return f"{_metric(quality.metric)} {quality.value:.4f} against {quality.baseline_value:.4f}"


def _doubt(quality: Quality, allowed: float) -> str:
    """Return the interval of the change, and whether it leaves open on which side of the limit it lies."""
    interval = _change(quality)
    if interval is None:
        return ""
    low, high = interval
    text = f" (95% interval of the change {low:+.4f} to {high:+.4f}"
    if low < -allowed < high:
        text += f"; {quality.samples} samples cannot tell it from the limit of {-allowed:+.4f}, more would"
    return text + ")"


def _change(quality: Quality) -> tuple[float, float] | None:
    """Return the interval of what was gained: of the paired difference, or of the agreement less 1."""
    if quality.difference is not None:
        return quality.difference
    if quality.metric == "agreement" and quality.interval is not None:
        return quality.interval[0] - 1, quality.interval[1] - 1
    return None


def _bytes_ratio(variant: Evaluation, baseline: Evaluation) -> float:
    return variant.file_bytes / baseline.file_bytes


def _metric(metric: str) -> str:
    return {"agreement": "agreement with the baseline", "r2": "R2"}.get(metric, metric)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."
