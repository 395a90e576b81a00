"""What a compression came to: every variant, published or not, and the JSON document that says so."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flyweight.compressor.evaluate.document import describe_evaluation
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.explain.explanation import Explanation
from flyweight.compressor.gate import Verdict
from flyweight.compressor.processor import this_processor


@dataclass(frozen=True, slots=True, repr=False)
class VariantOutcome:
    """One variant.

    Attributes:
        name: its folder, if it was published.
        kind: what makes it differ from the baseline, in a few words.
        verdict: whether it was published and why.
        evaluation: its figures; None when it could not be made or measured.
        path: its folder; None when it was not published.
        passes: their names, in order.
        notes: sentences of the passes and the bench.
        seconds: that making and measuring it took.
        explanation: why it is what it is; of published variants alone.
        earlier: its entry in the document, where an earlier run made it; None where this one did.
    """

    name: str
    kind: str
    verdict: Verdict
    evaluation: Evaluation | None = None
    path: Path | None = None
    passes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    explanation: Explanation | None = None
    earlier: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """Return the name and what became of it."""
        became = "published" if self.verdict.published else "refused"
        return f"VariantOutcome({self.name!r}, {'published earlier' if self.earlier else became})"


@dataclass(frozen=True, slots=True, repr=False)
class CompressionReport:
    """Everything there is to tell of a compression; `print` shows its table.

    Attributes:
        model: the name clients use.
        repository: the folder it was published to.
        recommended: the variant to use.
        samples: that were judged on.
        data_digest: of everything that variants were made and judged with.
        threads: inside an operator, in all measurements.
        variants: the baseline first, then those of this run in their order, then those of earlier runs.
        search: what a search for a budget tried, as it stands in the document.
        recommended_reason: why the recommended variant is recommended, as a sentence.
    """

    model: str
    repository: Path
    recommended: str
    samples: int
    data_digest: str
    threads: int
    variants: tuple[VariantOutcome, ...]
    search: Mapping[str, Any] | None = None
    recommended_reason: str = ""

    def __str__(self) -> str:
        """Return the table of variants, what was refused and why, and the recommendation."""
        from flyweight.compressor.table import text_of

        return text_of(self)

    def __repr__(self) -> str:
        """Return the figures that tell one report from another."""
        published = sum(variant.verdict.published for variant in self.variants)
        return (
            f"CompressionReport({self.model!r}, {len(self.variants)} variants, {published} published, "
            f"recommended={self.recommended!r})"
        )

    @property
    def baseline(self) -> VariantOutcome:
        """The uncompressed model."""
        return self.variants[0]

    def variant(self, name: str) -> VariantOutcome:
        """Return the variant called `name`; a KeyError if there is none."""
        return {variant.name: variant for variant in self.variants}[name]

    def document(self) -> dict[str, Any]:
        """Return the document that `flyweight compress --json` prints."""
        base = self.baseline.evaluation
        assert base is not None, "a compression without a measured baseline raises"
        return {
            "model": self.model,
            "repository": str(self.repository),
            "recommended": self.recommended,
            "recommended_reason": self.recommended_reason,
            "baseline": self.baseline.name,
            "data": {
                "samples": self.samples,
                "digest": self.data_digest,
                "quality_metric": base.quality.metric,
            },
            "environment": describe_environment(self.threads),
            "variants": [_describe(variant, base) for variant in self.variants],
            "search": self.search,
        }


def describe_environment(threads: int) -> dict[str, Any]:
    """Return where the figures were taken."""
    processor = this_processor()
    return {
        "cpu": processor.name,
        "isa": processor.isa,
        "cores": processor.cores,
        "threads": threads,
        "onnxruntime": version("onnxruntime"),
        "flyweight": version("flyweight"),
    }


def _describe(variant: VariantOutcome, baseline: Evaluation) -> dict[str, Any]:
    if variant.earlier is not None:
        return dict(variant.earlier)
    return {
        "name": variant.name,
        "kind": variant.kind,
        "path": None if variant.path is None else str(variant.path),
        "published": variant.verdict.published,
        "earlier": False,
        "reason": variant.verdict.reason,
        **describe_evaluation(variant.evaluation, baseline),
        "passes": list(variant.passes),
        "notes": list(variant.notes),
        "seconds": round(variant.seconds, 3),
        "explanation": variant.explanation and variant.explanation.document(),
    }
