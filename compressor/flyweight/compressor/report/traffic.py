"""What real traffic saw of the variants, as the JSON document has it."""

from collections.abc import Mapping

from pydantic import Field

from flyweight.compressor.report.part import Part


class Stage(Part):
    """The mean time that a request spent in one stage of the server."""

    mean_ms: float


class Served(Part):
    """One variant as real traffic saw it; `p50_ms` and `p99_ms` are what callers waited."""

    role: str = ""
    requests: int = 0
    failed: int = 0
    asked: float | None = None
    share: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    accuracy: float | None = None
    stages: Mapping[str, Stage] = Field(default_factory=dict)
    memory_bytes: int | None = None


class HotLoad(Part):
    """A variant that was published while traffic ran; times are seconds since the traffic began."""

    variant: str
    seconds_to_ready: float
    published_at: float | None = None
    ready_at: float | None = None
    requests_during: int = 0
    failed_during: int = 0


class Serving(Part):
    """What happened under traffic; `timeline` counts answers by variant in buckets that begin at a second."""

    requests: int = 0
    failed: int = 0
    seconds: float = 0.0
    callers: int | None = None
    server_memory_bytes: int | None = None
    split: Mapping[str, float] = Field(default_factory=dict)
    variants: Mapping[str, Served] = Field(default_factory=dict)
    hot_load: HotLoad | None = None
    timeline: tuple[tuple[float, Mapping[str, int]], ...] = ()
