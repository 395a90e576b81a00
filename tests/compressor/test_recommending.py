"""Which variant is recommended, and the sentence that says why, by tables."""

from dataclasses import replace

from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.recommending import recommendation


def variant(speedup: float, size: float = 1.0, low: float = 0.0, high: float = 0.0) -> Evaluation:
    """Return one whose speed has an interval of a hundredth around it, or the one that is given."""
    point = LatencyPoint(
        1, 0.01 / speedup, 0.02, 0.01, speedup, low or 0.99 * speedup, high or 1.01 * speedup, 100
    )
    return Evaluation(
        round(1_000_000 * size), 250_000, None, Quality("accuracy", 0.95, 0.95, 1000), (point,), 50_000_000
    )


BASELINE, HALF = variant(1.0), variant(1.0, 0.5)
FAST, SMALL, SLOW = variant(2.0, 0.5), variant(1.95, 0.25), variant(0.92, 0.5)


def test_the_fastest_is_recommended_and_of_equals_the_smallest() -> None:
    assert recommendation("baseline", {"baseline": BASELINE}).name == "baseline"
    assert recommendation("baseline", {"baseline": BASELINE, "fp16": HALF}).name == "fp16"
    assert recommendation("baseline", {"baseline": BASELINE, "fp16": HALF, "fast": FAST}).name == "fast"
    assert recommendation("baseline", {"baseline": BASELINE, "fast": FAST, "small": SMALL}).name == "small"
    assert recommendation("baseline", {"baseline": BASELINE, "slow": SLOW}).name == "baseline"


def test_the_recommendation_says_why() -> None:
    assert recommendation("b", {"b": BASELINE}).reason.startswith("Nothing else was published")
    assert recommendation("b", {"b": BASELINE, "fp16": HALF}).reason == (
        "50% of the file at the same speed, no measurable difference (95% interval 0.99 to 1.01); "
        "accuracy 0.9500 against 0.9500."
    )
    assert recommendation("b", {"b": BASELINE, "fp16": HALF, "fast": FAST}).reason == (
        "2.00 times the speed at batch 1 (95% interval 1.98 to 2.02) and 50% of the file; "
        "accuracy 0.9500 against 0.9500; the fastest that was published."
    )
    both = recommendation("b", {"b": BASELINE, "fast": FAST, "small": SMALL})
    assert (both.name, "as fast as fast within 5% and smaller" in both.reason) == ("small", True)
    assert "slow, has 0.92 times its speed" in recommendation("b", {"b": BASELINE, "slow": SLOW}).reason


def test_as_fast_as_the_baseline_is_not_called_the_fastest() -> None:
    found = {"b": BASELINE, "fp16": HALF, "coded": variant(1.0, 0.1)}
    assert "fastest" not in recommendation("b", found).reason


def test_a_small_difference_that_was_measurable_is_told_with_its_interval() -> None:
    reason = recommendation("b", {"b": BASELINE, "fp16": variant(1.03, 0.5, 1.01, 1.04)}).reason
    assert reason.startswith("50% of the file at the same speed within 5% (95% interval 1.01 to 1.04)")


def test_a_quality_whose_change_is_within_its_interval_is_no_measurable_difference() -> None:
    unsure = replace(HALF, quality=replace(HALF.quality, value=0.948, difference=(-0.006, 0.002)))
    sure = replace(HALF, quality=replace(HALF.quality, value=0.94, difference=(-0.015, -0.005)))
    told = [recommendation("b", {"b": BASELINE, "fp16": found}).reason for found in (unsure, sure)]
    assert told[0].endswith("accuracy 0.9480 against 0.9500, no measurable difference.")
    assert told[1].endswith("accuracy 0.9400 against 0.9500.")


def test_more_memory_than_the_baselines_is_remarked() -> None:
    hungry = replace(FAST, pss_bytes=63_000_000)
    assert "needs 1.26 times the memory (63.0 MB instead of 50.0 MB)" in (
        recommendation("b", {"b": BASELINE, "int8": hungry}).reason
    )
    for saved in (0, 10_000_000, -2_000_000):
        modest = replace(FAST, pss_bytes=50_000_000 - saved)
        assert "memory" not in recommendation("b", {"b": BASELINE, "int8": modest}).reason
