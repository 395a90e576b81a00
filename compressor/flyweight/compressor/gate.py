"""Do no harm: a variant is published only if it is better somewhere and not worse anywhere than was asked.

The decision is a pure function of two evaluations and the limits, and its reason is a sentence with figures.
"""

from dataclasses import dataclass
from typing import Final

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.evaluation import Evaluation

# One point of accuracy, or a hundredth of R2, is what most users would call the same model. Not every changed
# answer is a worse one, so twice as many may change where no labels say which.
_DEFAULT_LOSSES: Final = {"accuracy": 0.01, "r2": 0.01, "agreement": 0.02}
# Under this, memory differences are those of code pages and allocator, not of the model.
_SMALLEST_MEMORY_GAIN_BYTES: Final = 1 << 20
_EPSILON: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """What a variant may cost.

    Attributes:
        max_loss: of the deciding quality figure; None takes 0.01 for accuracy and R2, 0.02 for agreement.
        max_slowdown: its median latency over the baseline's, at every batch size. The default forgives what
            two runs of one model differ by on a busy machine.
        max_bytes_ratio: its file's bytes over the baseline's.
        min_gain: by which fraction it must be better on one axis at least: latency, file or memory.
    """

    max_loss: float | None = None
    max_slowdown: float = 1.1
    max_bytes_ratio: float = 1.0
    min_gain: float = 0.05

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            RecipeError: one has no meaning.
        """
        if self.max_loss is not None and not self.max_loss >= 0:
            raise RecipeError(f"The largest loss is a number of at least 0, not {self.max_loss}.")
        for name, value in (("slowdown", self.max_slowdown), ("bytes ratio", self.max_bytes_ratio)):
            if not value > 0:
                raise RecipeError(f"The largest {name} is a number above 0, not {value}.")
        if not 0 <= self.min_gain < 1:
            raise RecipeError(f"The smallest gain is at least 0 and below 1, not {self.min_gain}.")

    def loss(self, metric: str) -> float:
        """Return how much of `metric` may be lost."""
        return _DEFAULT_LOSSES[metric] if self.max_loss is None else self.max_loss


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a variant is published, and why or why not."""

    published: bool
    reason: str


def judge(variant: Evaluation, baseline: Evaluation, limits: Limits) -> Verdict:
    """Decide whether a variant is published."""
    harms = [
        harm
        for harm in (_worse(variant, limits), _slower(variant, limits), _bigger(variant, baseline, limits))
        if harm is not None
    ]
    if harms:
        return Verdict(published=False, reason=_sentence(harms))
    gains = _gains(variant, baseline, limits.min_gain)
    if not gains:
        return Verdict(
            published=False,
            reason=f"Not better by {limits.min_gain:.0%} in latency, file size or memory: "
            f"{variant.speedup:.2f} times the speed, {variant.file_bytes / baseline.file_bytes:.0%} of the "
            "bytes.",
        )
    return Verdict(published=True, reason=_sentence([*gains, _kept(variant)]))


def recommend(baseline: str, evaluations: dict[str, Evaluation]) -> str:
    """Return the variant to use: of the published, the fastest at the smallest batch; of equals the smallest.

    Equal is who is within 5 percent of the fastest. `evaluations` holds the baseline and what was published.
    """
    fastest = max(evaluation.speedup for evaluation in evaluations.values())
    equals = [name for name, evaluation in evaluations.items() if evaluation.speedup >= fastest / 1.05]
    return min(equals, key=lambda name: (evaluations[name].file_bytes, name != baseline))


def _worse(variant: Evaluation, limits: Limits) -> str | None:
    quality = variant.quality
    allowed = limits.loss(quality.metric)
    if -quality.delta <= allowed + _EPSILON:
        return None
    return (
        f"{_metric(quality.metric)} is {quality.value:.4f} instead of {quality.baseline_value:.4f}, "
        f"a loss of {-quality.delta:.4f} where {allowed:g} is allowed"
    )


def _slower(variant: Evaluation, limits: Limits) -> str | None:
    slow = [point for point in variant.latency if point.speedup * limits.max_slowdown < 1]
    if not slow:
        return None
    worst = min(slow, key=lambda point: point.speedup)
    return (
        f"at batch {worst.batch} a run takes {_ms(worst.p50_seconds)} instead of "
        f"{_ms(worst.baseline_p50_seconds)}, {1 / worst.speedup:.2f} times as long where "
        f"{limits.max_slowdown:g} is allowed"
    )


def _bigger(variant: Evaluation, baseline: Evaluation, limits: Limits) -> str | None:
    ratio = variant.file_bytes / baseline.file_bytes
    if ratio <= limits.max_bytes_ratio + _EPSILON:
        return None
    return (
        f"the file has {variant.file_bytes} bytes instead of {baseline.file_bytes}, {ratio:.2f} times as "
        f"many where {limits.max_bytes_ratio:g} is allowed"
    )


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
    ratio = variant.file_bytes / baseline.file_bytes
    if ratio <= 1 - smallest:
        gains.append(f"{ratio:.0%} of the bytes")
    saved = baseline.pss_bytes - variant.pss_bytes
    if saved >= max(smallest * baseline.pss_bytes, _SMALLEST_MEMORY_GAIN_BYTES):
        gains.append(f"{saved / 1e6:.1f} MB less memory")
    return gains


def _kept(variant: Evaluation) -> str:
    quality = variant.quality
    if quality.metric == "agreement":
        return f"agreement with the baseline {quality.value:.4f}"
    return f"{_metric(quality.metric)} {quality.value:.4f} against {quality.baseline_value:.4f}"


def _metric(metric: str) -> str:
    return {"agreement": "agreement with the baseline", "r2": "R2"}.get(metric, metric)


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return text[0].upper() + text[1:] + "."
