"""One run: the baseline is measured and published, then each candidate is made, measured and judged."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from flyweight.compressor.account import Account
from flyweight.compressor.caching import Cache, RecipeCache, default_folder
from flyweight.compressor.candidates import Candidate, share_of_time
from flyweight.compressor.context import Context
from flyweight.compressor.disk import disk_trouble, nothing_left_on_failure
from flyweight.compressor.division import Division
from flyweight.compressor.earlier import replaced_note
from flyweight.compressor.errors import CompressorError, OutOfTimeError, PassError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.served import servable
from flyweight.compressor.explain.explanation import Explanation, explain
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.gate import Verdict, judge
from flyweight.compressor.model import Model
from flyweight.compressor.options import Options
from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.publish import Origin, Publisher, check_repository
from flyweight.compressor.recipe import BASELINE, dump_recipe, kind_of, steps_of
from flyweight.compressor.search.building import digest_of
from flyweight.compressor.sessions import SessionSettings
from flyweight.compressor.stopping import Stopped
from flyweight.protos.variant.digests import sha256_of

# A variant takes as long to measure as the baseline did, and half as long again where the machine is busy.
_MEASURING_SHARE: Final = 1.5
# Of the time that is left: several variants are examined, and making others matters more.
_EXAMINING_SHARE: Final = 0.1
_IMPORT: Final = "import"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run publishes to.

    Attributes:
        repository: the folder of models.
        model: the name clients use.
        data_digest: of everything that variants are made and judged with.
    """

    repository: Path
    model: str
    data_digest: str


class Run:
    """A run of one model: its workspace, memory of passes, and how far it has come; used from one thread."""

    def __init__(self, source: Model, context: Context, division: Division, options: Options) -> None:
        self._source = source
        self._context = context
        self._division = division
        self._options = options
        cache = Cache((options.work_folder or default_folder()) / "cache")
        self._memo = Memo(RecipeCache(cache, source, digest_of(source), context))
        self._baseline_sha256 = ""

    def execute(
        self, candidates: Sequence[Candidate], place: Place, search: Mapping[str, Any] | None = None
    ) -> CompressionReport:
        """Make what is asked for, and return what came of it.

        Args:
            candidates: in the order in which they are tried.
            place: to publish to.
            search: what the search tried that found them, for the report.

        Raises:
            Stopped: the user pressed Ctrl-C; it carries the report of what was found until then.
        """
        progress, steps = self._options.progress, len(candidates) + 1
        progress("variants", 0, steps)
        baseline, publisher = self._start(place, search)
        report = self._account.report()
        try:
            for done, candidate in enumerate(candidates, start=1):
                progress("variants", done, steps)
                share = share_of_time(candidate, candidates[done:])
                self._account.outcomes.append(self._variant(candidate, baseline, publisher, share))
                report = self._account.report()
        except KeyboardInterrupt:
            raise Stopped(report) from None
        progress("variants", steps, steps)
        return report

    def _start(self, place: Place, search: Mapping[str, Any] | None) -> tuple[Model, Publisher]:
        """Measure and publish the baseline."""
        started = time.monotonic()
        baseline = self._baseline()
        bench = self._bench(baseline.onnx_path())
        check_repository(place.repository, place.model, bench.session.signature.inputs)
        publisher = Publisher(place.repository, place.model, bench, place.data_digest)
        measuring = time.monotonic()
        measured = bench.measure_baseline()
        # What is left for making a variant ends where measuring it has to begin.
        reserve = _MEASURING_SHARE * (time.monotonic() - measuring)
        self._context = replace(self._context, deadline=self._context.deadline - reserve)
        with nothing_left_on_failure(place.repository / place.model):
            folder = publisher.publish(BASELINE, baseline.onnx_path(), measured, Origin("original"))
        self._baseline_sha256 = sha256_of(baseline.onnx_path())
        self._account = Account(publisher, self._options, search)
        self._account.outcomes.append(
            VariantOutcome(
                BASELINE,
                "original",
                Verdict(
                    published=True, reason="The model as it was given; everything is measured against it."
                ),
                measured,
                folder,
                notes=(*self._division.notes, *bench.asking.notes),
                seconds=time.monotonic() - started,
            )
        )
        return baseline, publisher

    def _baseline(self) -> Model:
        if self._source.form is Form.ONNX:
            return self._source
        from flyweight.compressor.passes.export import Export

        return self._memo.apply(Export(), self._source, self._context).model

    def _bench(self, baseline: Path) -> Bench:
        settings = BenchSettings(
            session=SessionSettings(threads=self._options.threads),
            seconds_per_point=self._options.seconds_per_point,
            output=self._options.output,
            agreement=self._options.agreement,
            evaluation=self._options.evaluation,
        )
        folder = self._context.new_path("bench").parent
        return Bench(baseline, self._division.evaluation, folder, settings, self._options.progress)

    def _variant(
        self, candidate: Candidate, baseline: Model, publisher: Publisher, share: float
    ) -> VariantOutcome:
        """Make, measure, judge and maybe publish one variant, in a share of the time that is left."""
        started, recipe = time.monotonic(), candidate.recipe
        notes, found, folder, explanation = tuple[str, ...](), None, None, None
        try:
            self._check_worth(candidate)
            result = candidate.made or self._apply(recipe, baseline, share)
            notes, made = result.notes, servable(result.model.onnx_path())
            found = publisher.bench.measure(*made)
            verdict = self._judge(candidate.name, found)
            if verdict.published:
                found = self._examine(publisher.bench, made[0], found)
                verdict = self._judge(candidate.name, found)
            if verdict.published:
                explanation = self._explain(publisher.bench, baseline.onnx_path(), made[0], found)
                folder = self._publish(candidate, made, found, publisher)
        except CompressorError as error:
            trouble = disk_trouble(error)
            if trouble is not None:
                # Every other recipe would fail of it as well, and seem to be the one to blame.
                raise trouble from error
            verdict = Verdict(published=False, reason=str(error))
        return VariantOutcome(
            candidate.name,
            kind_of(recipe),
            verdict if folder is not None else _with_what_was_left(verdict, candidate.name, publisher),
            found,
            folder,
            tuple(step.name for step in steps_of(recipe)),
            notes,
            time.monotonic() - started,
            explanation,
        )

    def _publish(
        self, candidate: Candidate, made: tuple[Path, Path | None], found: Evaluation, publisher: Publisher
    ) -> Path:
        """Publish a variant, and note what it replaces."""
        recipe = dump_recipe(candidate.name, candidate.recipe)
        note = replaced_note(publisher.repository / publisher.model / candidate.name, recipe)
        origin = Origin(kind_of(candidate.recipe), recipe, BASELINE, self._baseline_sha256)
        folder = publisher.publish(candidate.name, made[0], found, origin, made[1])
        self._account.note_replaced(note)
        return folder

    def _examine(self, bench: Bench, path: Path, found: Evaluation) -> Evaluation:
        """Look closer at what is to be published, for a small part of the time that is left."""
        return bench.examine(path, found, max(0.0, _EXAMINING_SHARE * self._context.remaining_seconds()))

    def _explain(self, bench: Bench, baseline: Path, path: Path, found: Evaluation) -> Explanation | None:
        first = self._account.baseline
        if not self._options.explain or first is None or self._context.remaining_seconds() <= 0:
            return None
        self._context.progress("explaining", 0, 1)
        explanation = explain(bench, (baseline, first), (path, found))
        self._context.progress("explaining", 1, 1)
        return explanation

    def _check_worth(self, candidate: Candidate) -> None:
        """Refuse to begin what is not worth it after what was found, or cannot be done in time."""
        if self._context.remaining_seconds() <= 0:
            raise OutOfTimeError("Not tried: the time limit came first; give more with --time-limit.")
        reason = candidate.skip({outcome.name: outcome for outcome in self._account.outcomes})
        if reason is not None:
            raise PassError(f"Not tried: {reason}")

    def _judge(self, name: str, evaluation: Evaluation) -> Verdict:
        measured = self._account.baseline
        assert measured is not None, "a run begins with measuring the baseline"
        return judge(evaluation, measured, self._options.variant_limits.get(name, self._options.limits))

    def _apply(self, recipe: Pass, baseline: Model, share: float) -> PassResult:
        """Apply a recipe to the form of the model it starts from; whatever goes wrong is a PassError."""
        start = self._source if recipe.needs is self._source.form else baseline
        return run_foreign(
            lambda: self._memo.apply(recipe, start, self._context_of(recipe, start).within(share)),
            lambda reason: PassError(f"The recipe failed on this model ({reason})."),
        )

    def _context_of(self, recipe: Pass, start: Model) -> Context:
        """Return the context, with the imported original as the teacher for what learns from it."""
        first = steps_of(recipe)[0]
        if first.name == _IMPORT and self._context.baseline is None:
            imported = self._memo.apply(first, start, self._context).model
            self._context = replace(self._context, baseline=imported.module)
        return self._context


def _with_what_was_left(verdict: Verdict, name: str, publisher: Publisher) -> Verdict:
    """Tell of an earlier variant of the same name that stays, because nothing replaced it."""
    earlier = publisher.repository / publisher.model / name
    if not earlier.exists():
        return verdict
    left = f"An earlier variant of this name was left as it is in {earlier}; remove it if it is stale."
    return Verdict(published=False, reason=f"{verdict.reason} {left}")
