"""Which of the published variants to use, and a sentence that says why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.phrases import (
    as_fast,
    bytes_ratio,
    change_interval,
    interval_phrase,
    memory_phrase,
    quality_phrase,
    sentence,
)

# Who is within this of the fastest is as fast.
AS_FAST: Final = 1.05


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The variant to use, and a sentence that says why."""

    name: str
    reason: str


def recommendation(baseline: str, evaluations: Mapping[str, Evaluation]) -> Recommendation:
    """Return the variant to use: of the published, the fastest at the smallest batch; of equals the smallest.

    Equal is who is within 5 percent of the fastest. `evaluations` holds the baseline and what was published.
    """
    fastest = max(evaluations, key=lambda name: evaluations[name].speedup)
    least = evaluations[fastest].speedup / AS_FAST
    equals = [name for name, evaluation in evaluations.items() if evaluation.speedup >= least]
    name = min(equals, key=lambda name: (evaluations[name].file_bytes, name != baseline))
    if name == baseline:
        return Recommendation(name, _why_baseline(baseline, evaluations))
    return Recommendation(name, _why(name, fastest, baseline, evaluations))


def _why(name: str, fastest: str, reference: str, evaluations: Mapping[str, Evaluation]) -> str:
    chosen, baseline = evaluations[name], evaluations[reference]
    size = f"{bytes_ratio(chosen, baseline):.0%} of the file"
    same = 1 / AS_FAST < chosen.speedup < AS_FAST
    parts = [
        f"{size} at {_speed(chosen)}" if same else f"{_speed(chosen)} and {size}",
        _quality(chosen),
    ]
    more = memory_phrase(chosen, baseline)
    if more is not None:
        parts.append(more)
    if fastest not in (name, reference):
        parts.append(f"as fast as {fastest} within 5% and smaller")
    elif not same and len(evaluations) > 2:
        parts.append("the fastest that was published")
    return sentence(parts)


def _speed(chosen: Evaluation) -> str:
    point = chosen.latency[0]
    if as_fast(point):
        return f"the same speed, no measurable difference{interval_phrase(point)}"
    if 1 / AS_FAST < point.speedup < AS_FAST:
        return f"the same speed within 5%{interval_phrase(point)}"
    return f"{point.speedup:.2f} times the speed at batch {point.batch}{interval_phrase(point)}"


def _quality(chosen: Evaluation) -> str:
    interval = change_interval(chosen.quality)
    same = interval is not None and interval[0] <= 0 <= interval[1]
    return quality_phrase(chosen) + (", no measurable difference" if same else "")


def _why_baseline(baseline: str, evaluations: Mapping[str, Evaluation]) -> str:
    others = [name for name in evaluations if name != baseline]
    if not others:
        return "Nothing else was published, because nothing was better without doing harm."
    best = max(others, key=lambda name: evaluations[name].speedup)
    return (
        f"No other variant is as fast: the fastest of them, {best}, has "
        f"{evaluations[best].speedup:.2f} times its speed; take that where its file or memory counts more."
    )
