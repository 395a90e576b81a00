"""Do no harm, by tables: what is published, what is not, and the sentence that says why."""

from dataclasses import replace

import pytest

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.gate import Limits, judge, recommend


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
        (variant((2.0, 2.0), loss=0.01), "accuracy 0.9400 against 0.9500"),
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
            variant((2.0, 2.0), loss=0.011),
            "Accuracy is 0.9390 instead of 0.9500, a loss of 0.0110 where 0.01 is allowed.",
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
        (variant(), "Not better by 5% in latency, file size or memory: 1.00 times the speed, 100%"),
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
        (variant((2.0, 2.0), loss=0.05), Limits(max_loss=0.05)),
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
        (lambda: Limits(max_loss=-0.1), "largest loss"),
        (lambda: Limits(max_loss=float("nan")), "largest loss"),
        (lambda: Limits(max_slowdown=0), "largest slowdown"),
        (lambda: Limits(max_bytes_ratio=-1), "largest bytes ratio"),
        (lambda: Limits(min_gain=1), "smallest gain"),
    ],
)
def test_limits_without_meaning_are_refused(make, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make()


def test_the_fastest_is_recommended_and_of_equals_the_smallest() -> None:
    fast, small = variant((2.0, 2.0), size=0.5), variant((1.95, 2.0), size=0.25)
    half = variant((1.0, 1.0), size=0.5)
    assert recommend("baseline", {"baseline": BASELINE}) == "baseline"
    assert recommend("baseline", {"baseline": BASELINE, "fp16": half}) == "fp16"
    assert recommend("baseline", {"baseline": BASELINE, "fp16": half, "fast": fast}) == "fast"
    assert recommend("baseline", {"baseline": BASELINE, "fast": fast, "small": small}) == "small"
    slow = variant((0.92, 0.9), size=0.5)
    assert recommend("baseline", {"baseline": BASELINE, "slow": slow}) == "baseline"
