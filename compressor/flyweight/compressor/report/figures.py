"""The figures of a variant, as the JSON document has them."""

from pydantic import Field

from flyweight.compressor.report.part import Part


class McNemar(Part):
    """The paired test of a variant against the baseline."""

    p_value: float | None = None
    worse: int | None = None
    better: int | None = None


class PerClass(Part):
    """How good the answers for one class are."""

    label: int | str = Field(alias="class")
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    support: int | None = None
    baseline_recall: float | None = None


class Quality(Part):
    """How good a variant's answers are; shares are between 0 and 1."""

    metric: str = "quality"
    value: float | None = None
    baseline_value: float | None = None
    delta: float | None = None
    accuracy: float | None = None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    agreement: float | None = None
    samples: int | None = None
    interval: tuple[float, float] | None = None
    difference_interval: tuple[float, float] | None = None
    mcnemar: McNemar | None = None
    churn: float | None = None
    ece: float | None = None
    baseline_ece: float | None = None
    per_class: tuple[PerClass, ...] = ()


class Latency(Part):
    """The time of one call at one batch size.

    `ratio` is the baseline's time over it, both timed in turns, and `ratio_interval` its 95 % interval.
    """

    p50_ms: float | None = None
    p99_ms: float | None = None
    ratio: float | None = None
    ratio_interval: tuple[float, float] | None = None


class Memory(Part):
    """What a process that holds only this variant adds to memory, shared pages counted by share."""

    pss_bytes: int | None = None


class Stability(Part):
    """What a long run showed."""

    runs: int = 0
    seconds: float = 0.0
    equal_answers: bool | None = None
    bytes_per_run: float | None = None
    drift: float | None = None


class Trigger(Part):
    """What patches on the inputs showed."""

    passed: bool = True
    patches: int = 0
    samples: int = 0
    note: str = ""
