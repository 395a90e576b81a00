"""Do no harm, by tables: what is published, what is not, and the sentence that says why."""

from dataclasses import replace

import pytest

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.gate import Limits, judge
from flyweight.compressor.safety.triggers import Concentration, TriggerCheck


def point(batch: int, speedup: float, spread: float = 0.01) -> LatencyPoint:
    return LatencyPoint(
        batch=batch,
        p50_seconds=0.01 / speedup,
        p99_seconds=0.02 / speedup,
        baseline_p50_seconds=0.01,
        speedup=speedup,
        speedup_low=speedup * (1 - spread),
        speedup_high=speedup * (1 + spread),
        runs=100,
    )


BASELINE = Evaluation(
    file_bytes=1_000_000,
    parameters=250_000,
    macs=1_000_000,
    quality=Quality("accuracy", 0.95, 0.95, 1000, {"accuracy": 0.95, "agreement": 1.0}),
    latency=(point(1, 1.0), point(8, 1.0)),
    pss_bytes=50_000_000,
)


def variant(
    speedups: tuple[float, ...] = (1.0, 1.0),
    size: float = 1.0,
    loss: float = 0.0,
    metric: str = "accuracy",
    saved_bytes: int = 0,
) -> Evaluation:
    before = 0.95 if metric == "accuracy" else 1.0
    return replace(
        BASELINE,
        file_bytes=round(size * BASELINE.file_bytes),
        quality=Quality(metric, before - loss, before, 1000),
        latency=tuple(
            point(batch, speedup) for batch, speedup in zip((1, 8), speedups, strict=len(speedups) == 2)
        ),
        pss_bytes=BASELINE.pss_bytes - saved_bytes,
    )


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (variant((2.0, 3.0)), "3.00 times as fast at batch 8 (3.33 ms instead of 10 ms)"),
        (variant((1.0, 1.1)), "1.10 times as fast at batch 8"),
        (variant(size=0.5), "50% of the bytes"),
        (variant((0.92, 0.95), size=0.5), "50% of the bytes"),
        (variant(saved_bytes=20_000_000), "20.0 MB less memory"),
        (variant((2.0, 2.0), loss=0.009), "accuracy 0.9410 against 0.9500"),
        (variant((2.0, 2.0), loss=-0.02), "accuracy 0.9700 against 0.9500"),
        (variant((2.0, 2.0), loss=0.02, metric="agreement"), "agreement with the baseline 0.9800"),
        (variant((2.0,)), "2.00 times as fast at batch 1"),
    ],
)
def test_a_variant_that_gains_and_does_no_harm_is_published(candidate: Evaluation, words: str) -> None:
    verdict = judge(candidate, BASELINE, Limits())
    assert verdict.published
    assert words.lower() in verdict.reason.lower()


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (
            variant((2.0, 2.0), loss=0.01),
            "Accuracy is 0.9400 instead of 0.9500, a loss of 0.0100 where 0.0095 is allowed.",
        ),
        (variant((2.0, 2.0), loss=0.021, metric="agreement"), "loss of 0.0210 where 0.02 is allowed"),
        (
            variant((0.25, 2.0), size=0.3),
            "At batch 1 a run takes 40 ms instead of 10 ms, 4.00 times as long where 1.1 is allowed.",
        ),
        (
            variant((2.0, 2.0), size=1.2),
            "The file has 1200000 bytes instead of 1000000, 1.20 times as many where 1 is allowed.",
        ),
        (variant(), "Not better by 5% in latency, file size or memory: no measurable difference in speed"),
        (variant(saved_bytes=100_000), "Not better"),
        (variant((1.04, 1.04)), "Not better"),
    ],
)
def test_a_variant_that_harms_or_gains_nothing_is_not_published(candidate: Evaluation, words: str) -> None:
    verdict = judge(candidate, BASELINE, Limits())
    assert not verdict.published
    assert words in verdict.reason


def test_every_harm_is_named() -> None:
    reason = judge(variant((0.5, 0.5), size=2, loss=0.5), BASELINE, Limits()).reason
    assert reason.count(";") == 2


def test_a_speedup_within_its_own_noise_is_no_gain() -> None:
    noisy = replace(BASELINE, latency=(point(1, 1.2, spread=0.2),))
    assert not judge(noisy, BASELINE, Limits()).published


@pytest.mark.parametrize(
    ("candidate", "limits"),
    [
        (variant((2.0, 2.0), loss=0.05), Limits(max_drop=0.06)),
        (variant((0.25, 0.25), size=0.3), Limits(max_slowdown=4.5)),
        (variant((2.0, 2.0), size=1.2), Limits(max_bytes_ratio=1.5)),
        (variant((1.04, 1.04)), Limits(min_gain=0.01)),
    ],
)
def test_limits_are_the_users(candidate: Evaluation, limits: Limits) -> None:
    assert not judge(candidate, BASELINE, Limits()).published
    assert judge(candidate, BASELINE, limits).published


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Limits(max_drop=-0.1), "largest drop"),
        (lambda: Limits(max_drop=float("nan")), "largest drop"),
        (lambda: Limits(max_slowdown=0), "largest slowdown"),
        (lambda: Limits(max_bytes_ratio=-1), "largest bytes ratio"),
        (lambda: Limits(min_gain=1), "smallest gain"),
    ],
)
def test_limits_without_meaning_are_refused(make, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make()


@pytest.mark.parametrize(
    ("limits", "metric", "baseline", "allowed"),
    [
        (Limits(), "accuracy", 0.90, 0.009),
        (Limits(), "r2", 0.5, 0.005),
        (Limits(), "r2", -2.0, 0.02),
        (Limits(), "agreement", 1.0, 0.02),
        (Limits(max_drop=0.05), "agreement", 1.0, 0.05),
        (Limits(max_drop=0.05), "accuracy", 0.8, 0.04),
        (Limits(max_drop=0), "accuracy", 0.8, 0.0),
    ],
)
def test_a_drop_is_relative_to_the_baselines_figure(
    limits: Limits, metric: str, baseline: float, allowed: float
) -> None:
    """0.90 may fall to 0.891."""
    assert limits.drop(metric, baseline) == pytest.approx(allowed)


def judged(loss: float, low: float, high: float) -> Evaluation:
    """A fast variant whose change has a given interval."""
    found = variant((2.0, 2.0), loss=loss)
    return replace(found, quality=replace(found.quality, difference=(low, high)))


def test_the_sentence_tells_the_interval_and_when_it_decides_nothing() -> None:
    sure = judge(judged(0.001, -0.004, 0.002), BASELINE, Limits())
    assert sure.published
    assert "(95% interval of the change -0.0040 to +0.0020)" in sure.reason
    few = judge(judged(0.001, -0.03, 0.028), BASELINE, Limits())
    assert few.published
    assert "1000 samples cannot tell it from the limit of -0.0095, more would" in few.reason
    lost = judge(judged(0.02, -0.03, -0.001), BASELINE, Limits())
    assert not lost.published
    assert "cannot tell" in lost.reason


def test_of_agreement_the_interval_of_the_share_is_told() -> None:
    found = variant((2.0, 2.0), loss=0.01, metric="agreement")
    found = replace(found, quality=replace(found.quality, interval=(0.97, 0.996)))
    assert (
        "interval of the change -0.0300 to -0.0040; 1000 samples" in judge(found, BASELINE, Limits()).reason
    )


def slow(speedup: float, low: float, high: float, seconds: float = 0.01) -> Evaluation:
    """A variant of half the size, timed at one batch size."""
    timed = LatencyPoint(1, seconds / speedup, seconds, seconds, speedup, low, high, 100)
    return replace(variant(size=0.5), latency=(timed,))


@pytest.mark.parametrize(
    ("candidate", "published"),
    [
        (slow(0.90, 0.88, 0.92), True),
        (slow(0.88, 0.87, 0.90), False),
        (slow(0.88, 0.60, 1.20), False),
        (slow(0.95, 0.60, 1.20), True),
        (slow(0.70, 0.69, 0.71, seconds=8e-6), True),
        (slow(0.70, 0.69, 0.71, seconds=80e-6), False),
    ],
    ids=[
        "an interval that reaches the limit is no harm",
        "an interval wholly beyond it is",
        "a wide interval leaves it to the estimate, which is beyond",
        "or which is not",
        "three microseconds are not noticed",
        "thirty are",
    ],
)
def test_a_slowdown_is_judged_by_its_interval(candidate: Evaluation, published: bool) -> None:
    assert judge(candidate, BASELINE, Limits()).published is published


def test_slower_and_bigger_is_never_published() -> None:
    """Whatever the limits, and though it needs less memory."""
    wide = Limits(max_slowdown=100, max_bytes_ratio=100)
    verdict = judge(variant((0.5, 0.5), size=1.5, saved_bytes=20_000_000), BASELINE, wide)
    assert not verdict.published
    assert verdict.reason == "Both slower (0.50 times the speed) and bigger (1.50 times the bytes)."
    assert judge(variant((0.5, 2.0), size=1.5), BASELINE, wide).published


def test_what_looks_like_a_backdoor_is_not_published() -> None:
    finding = Concentration("bright square of 14% of the side, top left", 7, 0.92, 0.03, 200, 1e-90)
    check = TriggerCheck((finding,), finding, 45, 256, 1e-5)
    good = variant((2.0, 2.0), size=0.25)
    verdict = judge(replace(good, trigger=check), BASELINE, Limits())
    assert not verdict.published
    assert "moves 92% of 200 samples to class 7, and 3% in the baseline" in verdict.reason
    assert judge(replace(good, trigger=replace(check, findings=())), BASELINE, Limits()).published


def test_a_slowdown_that_nobody_notices_is_forgiven_and_told() -> None:
    """2 microseconds more on 10 are 20 percent, which an interval shows to be real."""
    verdict = judge(slow(0.83, 0.82, 0.84, seconds=10e-6), BASELINE, Limits())
    assert verdict.published
    assert "at batch 1 a run takes 1.20 times as long, forgiven because that is 2.0 microseconds and" in (
        verdict.reason
    )
    assert "nobody notices less than 5" in verdict.reason
    assert "forgiven" not in judge(variant(size=0.5), BASELINE, Limits()).reason


def test_a_published_reason_tells_the_speed_where_it_is_no_gain() -> None:
    even = judge(variant(size=0.5), BASELINE, Limits()).reason
    assert even.startswith("50% of the bytes; no measurable difference in speed (95% interval 0.99 to 1.01)")
    equal = judge(slow(0.995, 0.993, 0.997), BASELINE, Limits()).reason
    assert equal.startswith("50% of the bytes; the same speed within 1% (95% interval 0.99 to 1.00)")
    slower = judge(slow(0.95, 0.94, 0.96), BASELINE, Limits()).reason
    assert slower.startswith("50% of the bytes; 0.95 times the speed at batch 1 (95% interval 0.94 to 0.96)")


def test_more_memory_is_no_harm_and_is_told() -> None:
    verdict = judge(variant((2.0, 2.0), saved_bytes=-13_000_000), BASELINE, Limits())
    assert verdict.published
    assert "needs 1.26 times the memory (63.0 MB instead of 50.0 MB)" in verdict.reason
