"""From single answers and scraped samples to the "serving" part of the summary."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from demo import metrics_scrape
from demo.errors import DemoError
from demo.live import CALLERS, Experiment, Observed, failures
from demo.traffic import Answer

_STAGES: Final = ("decode", "queue", "run", "encode")
_BUCKET_SECONDS: Final = 0.5


def serving_part(experiment: Experiment, observed: Observed) -> dict[str, Any]:
    """Return what traffic saw, in the form that the report draws."""
    answers, cast = observed.answers, experiment.cast
    final = cast.final()
    return {
        "requests": len(answers),
        "failed": len(failures(answers)),
        "seconds": round(observed.seconds, 3),
        "callers": CALLERS,
        "server_memory_bytes": metrics_scrape.process_memory_bytes(observed.metrics),
        "split": {name: share / 100 for name, share in final.items()},
        "opening_split": {name: share / 100 for name, share in cast.opening().items()},
        "variants": {
            name: _variant_part(name, experiment.model, observed, final[name] / 100) for name in final
        },
        "hot_load": _hot_load_part(cast.latecomer, observed),
        "timeline": timeline(answers, observed.seconds, _BUCKET_SECONDS),
    }


def _variant_part(name: str, model: str, observed: Observed, asked: float) -> dict[str, Any]:
    own = [answer for answer in observed.answers if answer.variant == name]
    stages = metrics_scrape.stage_means_ms(observed.metrics, model).get(name, {})
    waited = np.array([answer.seconds for answer in own]) * 1e3
    return {
        "role": own[-1].role if own else "",
        "requests": len(own),
        "failed": 0,
        "asked": asked,
        "share": len(own) / max(len(observed.answers), 1),
        "p50_ms": float(np.percentile(waited, 50)) if own else None,
        "p99_ms": float(np.percentile(waited, 99)) if own else None,
        "accuracy": sum(answer.correct for answer in own) / len(own) if own else None,
        "stages": {stage: {"mean_ms": stages[stage]} for stage in _STAGES if stage in stages},
        "memory_bytes": metrics_scrape.memory_bytes(observed.metrics, model).get(name),
    }


def _hot_load_part(latecomer: str, observed: Observed) -> dict[str, Any]:
    during = [
        answer
        for answer in observed.answers
        if answer.sent_at <= observed.ready_at and answer.sent_at + answer.seconds >= observed.published_at
    ]
    return {
        "variant": latecomer,
        "seconds_to_ready": observed.ready_at - observed.published_at,
        "published_at": observed.published_at,
        "ready_at": observed.ready_at,
        "requests_during": len(during),
        "failed_during": len(failures(during)),
    }


def timeline(answers: Sequence[Answer], seconds: float, width: float) -> list[tuple[float, dict[str, int]]]:
    """Count answers by variant, by when they came, in whole buckets of `width` seconds."""
    buckets: list[dict[str, int]] = [{} for _ in range(int(seconds / width))]
    for answer in answers:
        place = int((answer.sent_at + answer.seconds) / width)
        if place < len(buckets) and answer.variant:
            buckets[place][answer.variant] = buckets[place].get(answer.variant, 0) + 1
    return [(index * width, counts) for index, counts in enumerate(buckets)]


def check(experiment: Experiment, observed: Observed) -> None:
    """Check what the demo promises: no request failed, everybody answered, the server counted the same.

    Raises:
        DemoError: one of these does not hold.
    """
    failed = failures(observed.answers)
    if failed:
        raise DemoError(
            f"{len(failed)} of {len(observed.answers)} requests failed; the first one: {failed[0].failure}"
        )
    counted = _counts(observed.answers)
    silent = [name for name in experiment.cast.final() if not counted.get(name)]
    if silent:
        raise DemoError(f"{', '.join(silent)} answered nothing, though the split gave it a share.")
    told = metrics_scrape.answered(observed.metrics, experiment.model)
    if told != counted:
        raise DemoError(f"The callers counted {counted} answers and the server's metrics say {told}.")


def _counts(answers: Sequence[Answer]) -> Mapping[str, int]:
    names, counts = np.unique([answer.variant for answer in answers if answer.variant], return_counts=True)
    return {str(name): int(count) for name, count in zip(names, counts, strict=True)}
