"""The server's Prometheus endpoint, read as a monitoring system reads it."""

import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One line of the exposition: name, labels, value."""

    name: str
    labels: dict[str, str]
    value: float


def scrape(url: str) -> tuple[Sample, ...]:
    """Fetch and parse the metrics at `url`, which our own server printed."""
    with urllib.request.urlopen(url, timeout=_SECONDS) as response:  # noqa: S310  # http on loopback
        text = response.read().decode()
    return parse(text)


def parse(text: str) -> tuple[Sample, ...]:
    """Parse a text exposition."""
    return tuple(
        Sample(sample.name, dict(sample.labels), float(sample.value))
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    )


def answered(samples: Iterable[Sample], model: str) -> dict[str, int]:
    """Return how many requests the server says each variant answered with OK."""
    counts: defaultdict[str, int] = defaultdict(int)
    for sample in samples:
        labels = sample.labels
        if sample.name == "flyweight_requests_total" and labels["model"] == model and labels["code"] == "OK":
            counts[labels["variant"]] += int(sample.value)
    return dict(counts)


def stage_means_ms(samples: Iterable[Sample], model: str) -> dict[str, dict[str, float]]:
    """Return by variant and stage the mean time in milliseconds: the histogram's sum over its count."""
    sums: defaultdict[tuple[str, str], float] = defaultdict(float)
    counts: defaultdict[tuple[str, str], float] = defaultdict(float)
    for sample in samples:
        if sample.labels.get("model") != model or "stage" not in sample.labels:
            continue
        key = sample.labels["variant"], sample.labels["stage"]
        if sample.name == "flyweight_request_stage_seconds_sum":
            sums[key] += sample.value
        elif sample.name == "flyweight_request_stage_seconds_count":
            counts[key] += sample.value
    means: defaultdict[str, dict[str, float]] = defaultdict(dict)
    for (variant, stage), count in counts.items():
        if count:
            means[variant][stage] = 1e3 * sums[variant, stage] / count
    return dict(means)


def memory_bytes(samples: Iterable[Sample], model: str) -> dict[str, int]:
    """Return by variant the memory that it adds to a process, in bytes.

    As it was measured in a process of its own when it was published; where a variant was published without,
    how much the server grew when it loaded it.
    """
    found: dict[str, dict[str, int]] = {"load_pss": {}, "validated_pss": {}}
    for sample in samples:
        if sample.name == "flyweight_variant_memory_bytes" and sample.labels["model"] == model:
            found.setdefault(sample.labels["kind"], {})[sample.labels["variant"]] = int(sample.value)
    return found["load_pss"] | found["validated_pss"]


def process_memory_bytes(samples: Iterable[Sample]) -> int | None:
    """Return the proportional set size of the whole server in bytes, if it tells."""
    wanted = ("flyweight_process_memory_bytes", {"kind": "pss"})
    return next((int(sample.value) for sample in samples if (sample.name, sample.labels) == wanted), None)
