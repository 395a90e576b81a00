"""The JSON document of a compression, read into types: what a report is drawn from.

Only names are needed; a figure that was not taken (a variant that could not be built, a run without traffic)
is None, and is left out of the pictures. Unknown keys are ignored: an older report reads a newer document.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from flyweight.compressor.errors import CompressorError


class ReportError(CompressorError):
    """The document is not one of a compression, or the report cannot be written."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: object) -> object:
        """Take a null for a figure, or a whole part, that was not taken."""
        if not isinstance(value, Mapping):
            return value
        return {key: part for key, part in value.items() if part is not None}


class McNemar(_Part):
    """The paired test of a variant against the baseline."""

    p_value: float | None = None
    worse: int | None = None
    better: int | None = None


class PerClass(_Part):
    """How good the answers for one class are."""

    label: int | str = Field(alias="class")
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    support: int | None = None
    baseline_recall: float | None = None


class Quality(_Part):
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


class Latency(_Part):
    """The time of one call at one batch size; `ratio` is the baseline's time over it, timed in turns."""

    p50_ms: float | None = None
    p99_ms: float | None = None
    ratio: float | None = None


class Memory(_Part):
    """What a process that holds only this variant adds to memory, shared pages counted by share."""

    pss_bytes: int | None = None


class Layer(_Part):
    """What changed in one layer."""

    name: str
    operator: str = ""
    parameters: int = 0
    baseline_parameters: int | None = None
    bits: int = 32
    zeros: float = 0.0
    snr_db: float | None = None


class Flip(_Part):
    """A sample that is answered otherwise; `picture` is a data URI or empty."""

    sample: int
    label: int | None = None
    baseline: int
    variant: int
    picture: str = Field(default="", pattern=r"^(data:image/png;base64,[A-Za-z0-9+/=]*)?$")


class Flips(_Part):
    """All samples that are answered otherwise."""

    count: int = 0
    harmed: int | None = None
    mended: int | None = None
    moves: tuple[tuple[int, int, int], ...] = ()
    samples: tuple[Flip, ...] = ()


class Saliency(_Part):
    """Whether a variant looks at the same places."""

    correlation: float
    lowest: float
    samples: int


class Finding(_Part):
    """Why a variant is not faster, and what to do."""

    finding: str
    nodes: tuple[str, ...] = ()
    share: float | None = None
    remedy: str = ""


class Explanation(_Part):
    """Why a variant is what it is."""

    layers: tuple[Layer, ...] = ()
    flips: Flips | None = None
    saliency: Saliency | None = None
    audit: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


class Stability(_Part):
    """What a long run showed."""

    runs: int = 0
    seconds: float = 0.0
    equal_answers: bool | None = None
    bytes_per_run: float | None = None
    drift: float | None = None


class Trigger(_Part):
    """What patches on the inputs showed."""

    passed: bool = True
    patches: int = 0
    samples: int = 0
    note: str = ""


class Variant(_Part):
    """One way to answer, as it was measured."""

    name: str
    kind: str = ""
    path: str | None = None
    published: bool = True
    reason: str = ""
    bytes: int | None = None
    parameters: int | None = None
    macs: int | None = None
    quality: Quality = Quality()
    latency: Mapping[int, Latency] = Field(default_factory=dict)
    memory: Memory = Memory()
    passes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float | None = None
    compressed_bytes: int | None = None
    bits_per_weight: float | None = None
    nonzero_parameters: int | None = None
    load_ms: float | None = None
    energy_mj: float | None = None
    robustness: Mapping[str, Mapping[str, float | None]] = Field(default_factory=dict)
    stability: Stability | None = None
    trigger: Trigger | None = None
    explanation: Explanation | None = None

    def p50_ms(self, batch: int) -> float | None:
        """Return the median latency at a batch size, if it was measured."""
        found = self.latency.get(batch)
        return found.p50_ms if found else None


class Stage(_Part):
    """The mean time that a request spent in one stage of the server."""

    mean_ms: float


class Served(_Part):
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


class HotLoad(_Part):
    """A variant that was published while traffic ran; times are seconds since the traffic began."""

    variant: str
    seconds_to_ready: float
    published_at: float | None = None
    ready_at: float | None = None
    requests_during: int = 0
    failed_during: int = 0


class Serving(_Part):
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


class Data(_Part):
    """What the variants were measured on."""

    name: str | None = None
    samples: int | None = None
    digest: str | None = None
    quality_metric: str = "quality"


class Environment(_Part):
    """Where they were measured."""

    cpu: str | None = None
    isa: str | None = None
    cores: int | None = None
    threads: int | None = None
    onnxruntime: str | None = None
    flyweight: str | None = None


class SearchTrial(_Part):
    """One recipe that a search tried; latency and size are shares of the baseline's."""

    number: int
    kind: str = ""
    latency_share: float | None = None
    size_share: float | None = None
    quality_lost: float | None = None
    missed: str | None = None
    error: str | None = None


class Search(_Part):
    """What a search for a budget tried."""

    budget: str = ""
    sentence: str = ""
    trials: tuple[SearchTrial, ...] = ()


class Document(_Part):
    """A whole compression: what went in, where, and every variant, published or not."""

    model: str
    repository: str = ""
    recommended: str | None = None
    baseline: str = "baseline"
    note: str = ""
    data: Data = Data()
    environment: Environment = Environment()
    variants: tuple[Variant, ...] = Field(min_length=1)
    serving: Serving | None = None
    search: Search | None = None

    def variant(self, name: str | None) -> Variant | None:
        """Return the variant of that name, if there is one."""
        return next((variant for variant in self.variants if variant.name == name), None)

    def speedup(self, variant: Variant, batch: int) -> float | None:
        """Return how many times as fast as the baseline a variant is at a batch size.

        Where both were timed in turns, that ratio; else that of their medians.
        """
        timed = variant.latency.get(batch)
        if timed and timed.ratio:
            return timed.ratio
        reference = self.variant(self.baseline)
        before, after = reference.p50_ms(batch) if reference else None, variant.p50_ms(batch)
        return before / after if before and after else None

    def size_share(self, variant: Variant) -> float | None:
        """Return a variant's file size as a share of the baseline's."""
        reference = self.variant(self.baseline)
        return variant.bytes / reference.bytes if reference and reference.bytes and variant.bytes else None


def read_document(document: Mapping[str, Any]) -> Document:
    """Read the document that `flyweight compress --json` prints.

    Raises:
        ReportError: it is not such a document; the sentence names the first field that is wrong.
    """
    try:
        return Document.model_validate(dict(document))
    except (ValidationError, TypeError, ValueError) as error:
        reason = _first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise ReportError(
            f"This is not the document of a compression ({reason}); "
            "give the output of `flyweight compress --json`."
        ) from error


def _first_fault(error: ValidationError) -> str:
    fault = error.errors()[0]
    return f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg'].lower()}"
