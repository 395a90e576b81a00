"""The JSON document of a compression, read into types: what a report is drawn from.

Only names are needed; a figure that was not taken (a variant that could not be built, a run without traffic)
is None, and is left out of the pictures. Unknown keys are ignored: an older report reads a newer document.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, ValidationError

from flyweight.compressor.errors import CompressorError
from flyweight.compressor.report.explained import Explanation
from flyweight.compressor.report.figures import Latency, Memory, Quality, Stability, Trigger
from flyweight.compressor.report.part import Part
from flyweight.compressor.report.traffic import Serving


class ReportError(CompressorError):
    """The document is not one of a compression, or the report cannot be written."""


class Variant(Part):
    """One way to answer, as it was measured."""

    name: str
    kind: str = ""
    path: str | None = None
    published: bool = True
    earlier: bool = False
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


class Data(Part):
    """What the variants were measured on."""

    name: str | None = None
    samples: int | None = None
    digest: str | None = None
    quality_metric: str = "quality"


class Environment(Part):
    """Where they were measured."""

    cpu: str | None = None
    isa: str | None = None
    cores: int | None = None
    threads: int | None = None
    onnxruntime: str | None = None
    flyweight: str | None = None


class SearchTrial(Part):
    """One recipe that a search tried; latency and size are shares of the baseline's."""

    number: int
    kind: str = ""
    latency_share: float | None = None
    size_share: float | None = None
    quality_lost: float | None = None
    missed: str | None = None
    error: str | None = None


class Search(Part):
    """What a search for a budget tried."""

    budget: str = ""
    sentence: str = ""
    trials: tuple[SearchTrial, ...] = ()


class Document(Part):
    """A whole compression: what went in, where, and every variant, published or not."""

    model: str
    repository: str = ""
    recommended: str | None = None
    recommended_reason: str = ""
    baseline: str = "baseline"
    note: str = ""
    data: Data = Data()
    environment: Environment = Environment()
    variants: tuple[Variant, ...] = Field(min_length=1)
    serving: Serving | None = None
    search: Search | None = None

    @property
    def batches(self) -> tuple[int, ...]:
        """The batch sizes that were measured, the smallest first; 1 where none was."""
        return tuple(sorted({batch for variant in self.variants for batch in variant.latency})) or (1,)

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

    def is_as_fast(self, variant: Variant, batch: int) -> bool:
        """Tell whether a variant's speed could not be told from the baseline's."""
        interval = timed.ratio_interval if (timed := variant.latency.get(batch)) else None
        return variant.name != self.baseline and interval is not None and interval[0] <= 1 <= interval[1]

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
