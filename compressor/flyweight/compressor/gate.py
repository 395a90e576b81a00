"""Do no harm: a variant is published only if it is better somewhere and not worse anywhere than was asked.

The decision is a pure function of two evaluations and the limits, and its reason is a sentence with figures.
"""

from dataclasses import dataclass
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import NARROW, LatencyPoint
from flyweight.compressor.phrases import (
    bytes_ratio,
    doubt_phrase,
    memory_phrase,
    metric_phrase,
    milliseconds,
    pace_phrase,
    quality_phrase,
    sentence,
)

# One part in a hundred of the baseline's accuracy, or R2, is what most users would call the same model.
_RELATIVE_DROP: Final = 0.01
# Not every changed answer is a worse one, so twice as many may change where no labels say which.
_AGREEMENT_DROP: Final = 0.02
# Under this, memory differences are those of code pages and allocator, not of the model.
_SMALLEST_MEMORY_GAIN_BYTES: Final = 1 << 20
# Of a call through a server this is not two parts in a hundred. Models that run for microseconds differ by as
# much from one session to the next, by where their weights happen to lie.
UNNOTICED_SECONDS: Final = 5e-6
# Fractions such as 0.98 have no exact form, and what is just at a limit keeps it.
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


def judge(variant: Evaluation, baseline: Evaluation, limits: Limits) -> Verdict:
    """Decide whether a variant is published."""
    found = harms(variant, baseline, limits)
    if found:
        return Verdict(published=False, reason=sentence(found))
    gains = _gains(variant, baseline, limits.min_gain)
    if not gains:
        return Verdict(
            published=False,
            reason=f"Not better by {limits.min_gain:.0%} in latency, file size or memory: "
            f"{pace_phrase(variant)}, {bytes_ratio(variant, baseline):.0%} of the bytes.",
        )
    costs = (_forgiven(variant, limits.max_slowdown), memory_phrase(variant, baseline))
    told = [*gains, *(cost for cost in costs if cost is not None), _kept(variant, limits)]
    return Verdict(published=True, reason=sentence(told))


def harms(variant: Evaluation, baseline: Evaluation, limits: Limits) -> list[str]:
    """Return everything in which a variant is worse than asked, a phrase each."""
    found = (
        _worse(variant, limits),
        _slower(variant, limits),
        _bigger(variant, baseline, limits),
        _triggered(variant),
    )
    return [harm for harm in found if harm is not None] or _without_use(variant, baseline)


def _worse(variant: Evaluation, limits: Limits) -> str | None:
    quality = variant.quality
    allowed = limits.drop(quality.metric, quality.baseline_value)
    if -quality.delta <= allowed + _EPSILON:
        return None
    return (
        f"{metric_phrase(quality.metric)} is {quality.value:.4f} instead of {quality.baseline_value:.4f}, "
        f"a loss of {-quality.delta:.4f} where {allowed:.4g} is allowed{doubt_phrase(quality, allowed)}"
    )


def _slower(variant: Evaluation, limits: Limits) -> str | None:
    slow = [point for point in variant.latency if _is_slower(point, limits.max_slowdown)]
    if not slow:
        return None
    worst = min(slow, key=lambda point: point.speedup)
    return (
        f"at batch {worst.batch} a run takes {milliseconds(worst.p50_seconds)} instead of "
        f"{milliseconds(worst.baseline_p50_seconds)}, {1 / worst.speedup:.2f} times as long where "
        f"{limits.max_slowdown:g} is allowed"
    )


def _is_slower(point: LatencyPoint, most: float) -> bool:
    """Tell whether a point is beyond the limit, so that the same variant gets the same verdict every time."""
    return not _is_unnoticed(point) and _is_beyond(point, most)


def _is_unnoticed(point: LatencyPoint) -> bool:
    return point.p50_seconds - point.baseline_p50_seconds < UNNOTICED_SECONDS


def _is_beyond(point: LatencyPoint, most: float) -> bool:
    """Tell whether a point is slower than the limit allows.

    With a narrow interval the whole of it must be beyond. A wide one is evidence of nothing, and leaving it
    at that would publish whatever was measured badly: then the point estimate decides.
    """
    surest = point.speedup_high if point.interval_width <= NARROW else point.speedup
    return surest * most < 1


def _forgiven(variant: Evaluation, most: float) -> str | None:
    """Return what is said of a variant that is slower than allowed by a time that nobody notices."""
    slow = [point for point in variant.latency if _is_unnoticed(point) and _is_beyond(point, most)]
    if not slow:
        return None
    worst = max(slow, key=lambda point: point.p50_seconds - point.baseline_p50_seconds)
    more = 1e6 * (worst.p50_seconds - worst.baseline_p50_seconds)
    return (
        f"at batch {worst.batch} a run takes {1 / worst.speedup:.2f} times as long, forgiven because that is "
        f"{more:.1f} microseconds and nobody notices less than {1e6 * UNNOTICED_SECONDS:.0f}"
    )


def _bigger(variant: Evaluation, baseline: Evaluation, limits: Limits) -> str | None:
    ratio = bytes_ratio(variant, baseline)
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
    ratio = bytes_ratio(variant, baseline)
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
            f"({milliseconds(best.p50_seconds)} instead of {milliseconds(best.baseline_p50_seconds)})"
        )
    ratio = bytes_ratio(variant, baseline)
    if ratio <= 1 - smallest:
        gains.append(f"{ratio:.0%} of the bytes")
    saved = baseline.pss_bytes - variant.pss_bytes
    if saved >= max(smallest * baseline.pss_bytes, _SMALLEST_MEMORY_GAIN_BYTES):
        gains.append(f"{saved / 1e6:.1f} MB less memory")
    if gains and not faster:
        gains.append(pace_phrase(variant))
    return gains


def _kept(variant: Evaluation, limits: Limits) -> str:
    quality = variant.quality
    return quality_phrase(variant) + doubt_phrase(
        quality, limits.drop(quality.metric, quality.baseline_value)
    )
