"""What came of a run so far: its own variants, those that earlier runs left, and which of them to use."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flyweight.compressor.earlier import earlier_variants, stale_note
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.gate import harms
from flyweight.compressor.options import Options
from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.publish import Publisher
from flyweight.compressor.recipe import BASELINE
from flyweight.compressor.recommending import recommendation
from flyweight.compressor.records import read_record, write_record
from flyweight.protos.variant import MODEL_FILE, read_manifest


class Account:
    """The outcomes of a run, kept beside the variants after each of them; used from one thread."""

    def __init__(self, publisher: Publisher, options: Options, search: Mapping[str, Any] | None) -> None:
        self._publisher = publisher
        self._options = options
        self._search = search
        # Read before this run's own record takes its place.
        self._before = read_record(publisher.repository, publisher.model) or {}
        self._replaced: list[str] = []
        self.outcomes: list[VariantOutcome] = []

    @property
    def baseline(self) -> Evaluation | None:
        """The figures of the baseline, which is the first outcome."""
        return self.outcomes[0].evaluation

    def note_replaced(self, note: str | None) -> None:
        """Tell in the report that a variant of an earlier run was replaced."""
        self._replaced += [note] if note is not None else []

    def report(self) -> CompressionReport:
        """Return what came of the run so far, and keep it beside the variants.

        Raises:
            RepositoryError: the repository cannot be written.
            ManifestError: somebody damaged the baseline meanwhile.
        """
        variants = self._variants()
        found = {o.name: o.evaluation for o in variants if o.path and o.evaluation and self._eligible(o)}
        chosen = recommendation(BASELINE, found)
        report = CompressionReport(
            model=self._publisher.model,
            repository=self._publisher.repository,
            recommended=chosen.name,
            samples=self._publisher.bench.samples,
            data_digest=self._publisher.data_sha256,
            threads=self._options.threads,
            variants=variants,
            search=self._search,
            recommended_reason=chosen.reason,
        )
        write_record(report)
        return report

    def _variants(self) -> tuple[VariantOutcome, ...]:
        """Return the outcomes, then earlier runs' variants; the baseline's notes tell of stale ones."""
        first, *others = self.outcomes
        folder = self._publisher.repository / self._publisher.model
        manifest = read_manifest(folder / BASELINE)
        if manifest is None:
            return tuple(self.outcomes)
        known = {outcome.name for outcome in self.outcomes}
        earlier = earlier_variants(folder, manifest, known, self._before)
        (digest,) = (file.sha256 for file in manifest.files if file.path == MODEL_FILE)
        stale = stale_note(folder, digest, {outcome.name for outcome in self.outcomes if outcome.path})
        notes = (*first.notes, *self._replaced, *([stale] if stale else []))
        return (replace(first, notes=notes), *others, *earlier)

    def _eligible(self, outcome: VariantOutcome) -> bool:
        """Tell whether a variant may be recommended: one of an earlier run had to keep other limits."""
        if outcome.earlier is None:
            return True
        found, baseline = outcome.evaluation, self.baseline
        if found is None or not found.latency or baseline is None:
            return False
        same = found.quality.metric == baseline.quality.metric
        limits = self._options.variant_limits.get(outcome.name, self._options.limits)
        return same and not harms(found, baseline, limits)
