"""Compress a model: apply recipes, measure what came of them, publish what does no harm."""

import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.division import Division, divide
from flyweight.compressor.errors import CompressorError, DataError, PassError, RecipeError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.feeding import fit
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.gate import Verdict, judge, recommend
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.options import Options
from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.passes.base import Form, Pass, PassResult, PassSequence
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.publish import Origin, Publisher, check_repository
from flyweight.compressor.recipe import (
    BASELINE,
    default_recipes,
    dump_recipe,
    kind_of,
    require_variant_name,
    steps_of,
)
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.variant.digests import sha256_of


def compress(
    model: Model | Path,
    data: DataSet,
    repository: Path,
    name: str,
    recipes: Mapping[str, Pass] | None = None,
    options: Options | None = None,
) -> CompressionReport:
    """Compress a model by every recipe and publish it with those variants that do no harm.

    A recipe that fails, or whose outcome is worse than asked, is told in the report and changes nothing.

    Args:
        model: an ONNX file, or a torch module.
        data: to calibrate and to judge with; labelled or not.
        repository: the folder of models, made when it is not there.
        name: what clients will call the model.
        recipes: passes by variant name; None takes the defaults for the model's form.
        options: everything else.

    Raises:
        ModelError: the model cannot be read or run.
        DataError: the data do not fit the model.
        RecipeError: a recipe's name cannot name a variant, or its passes do not fit the model.
        RepositoryError: the repository cannot be written, or holds another model of this name.
    """
    options = options or Options()
    source = Model(path=model) if isinstance(model, Path) else model
    chosen = _checked(recipes if recipes is not None else _defaults(source), source)
    division = divide(data, source.form, options, _rows_at_a_time(source, data, options.training))
    with tempfile.TemporaryDirectory(prefix="flyweight-compress-") as folder:
        workspace = Path(folder)
        context = Context(
            workspace=workspace,
            calibration=division.calibration,
            training=division.training,
            baseline=source.module,
            progress=options.progress,
            seed=options.seed,
            threads=options.threads,
        )
        return _Compression(source, context, division, options).run(chosen, data, repository, name)


def _defaults(source: Model) -> Mapping[str, Pass]:
    if source.form is Form.ONNX:
        return default_recipes()
    from flyweight.compressor.torch_recipes import default_torch_recipes

    return default_torch_recipes()


def _rows_at_a_time(source: Model, data: DataSet, training: DataSet | None) -> int | None:
    """Check the data against the model before they are divided, and return how many rows it runs at once.

    Raises:
        ModelError: the model cannot be loaded.
        DataError: the data do not fit it.
    """
    if source.form is Form.TORCH:
        if training is not None:
            _check_training(training, source)
        return None
    load_graph(source.onnx_path(), weights=False)
    session = Session(source.onnx_path(), SessionSettings(optimise=False))
    rows = fit(data, session.signature).rows
    if training is not None:
        try:
            fit(training, session.signature)
        except DataError as error:
            raise DataError(f"The training data do not fit the model. {error}") from error
    return rows


def _check_training(training: DataSet, source: Model) -> None:
    for name, example in source.example.items():
        array = training.inputs.get(name)
        if array is None:
            raise DataError(f"The training data have no array for the model's input {name!r}; add it.")
        if array.dtype != example.dtype or array.shape[1:] != example.shape[1:]:
            raise DataError(
                f"Input {name!r} is {array.dtype}{list(array.shape[1:])} a sample in the training data and "
                f"{example.dtype}{list(example.shape[1:])} in --data; both must be alike."
            )


def _checked(recipes: Mapping[str, Pass], source: Model) -> dict[str, Pass]:
    """Complete recipes so that each gives an ONNX graph, and refuse those that cannot start from the model.

    Raises:
        RecipeError: as said.
    """
    chosen = {}
    for name, recipe in recipes.items():
        require_variant_name(name, "The recipes")
        if recipe.gives is Form.TORCH:
            from flyweight.compressor.passes.export import Export

            recipe = PassSequence([*steps_of(recipe), Export()])  # noqa: PLW2901  # the same recipe, completed
        if recipe.needs is Form.TORCH and source.form is Form.ONNX:
            raise RecipeError(
                f"The recipe {name!r} trains a torch module and was given an ONNX file; give the module with "
                "--module, or a recipe of passes for ONNX."
            )
        chosen[name] = recipe
    return chosen


@dataclass(frozen=True, slots=True)
class _Built:
    """A variant before it is measured."""

    result: PassResult
    passes: tuple[str, ...]


class _Compression:
    """One run of `compress`: its workspace, its memory of passes, and how far it has come."""

    def __init__(self, source: Model, context: Context, division: Division, options: Options) -> None:
        self._source = source
        self._context = context
        self._division = division
        self._options = options
        self._memo = Memo()

    def run(
        self, recipes: Mapping[str, Pass], data: DataSet, repository: Path, name: str
    ) -> CompressionReport:
        """Export, measure and publish the baseline, then each recipe's outcome."""
        progress, steps = self._options.progress, len(recipes) + 1
        progress("variants", 0, steps)
        started = time.monotonic()
        baseline = self._baseline()
        bench = self._bench(baseline.onnx_path())
        check_repository(repository, name, bench.session.signature.inputs)
        publisher = Publisher(repository, name, bench, _digest(data, self._options.training))
        measured = bench.measure_baseline()
        folder = publisher.publish(BASELINE, baseline.onnx_path(), measured, Origin("original"))
        first = VariantOutcome(
            BASELINE,
            "original",
            Verdict(published=True, reason="The model as it was given; everything is measured against it."),
            measured,
            folder,
            notes=(*self._division.notes, *bench.asking.notes),
            seconds=time.monotonic() - started,
        )
        outcomes = [first]
        for done, (variant, recipe) in enumerate(recipes.items(), start=1):
            progress("variants", done, steps)
            outcomes.append(self._variant(variant, recipe, baseline, publisher, measured))
        progress("variants", steps, steps)
        return CompressionReport(
            model=name,
            repository=repository,
            recommended=recommend(
                BASELINE, {o.name: o.evaluation for o in outcomes if o.path and o.evaluation}
            ),
            samples=bench.samples,
            data_digest=data.digest,
            threads=self._options.threads,
            variants=tuple(outcomes),
        )

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
        )
        folder = self._context.new_path("bench").parent
        return Bench(baseline, self._division.evaluation, folder, settings, self._options.progress)

    def _variant(
        self, name: str, recipe: Pass, baseline: Model, publisher: Publisher, measured: Evaluation
    ) -> VariantOutcome:
        """Make, measure, judge and maybe publish one variant."""
        started = time.monotonic()
        passes, notes = tuple(step.name for step in steps_of(recipe)), tuple[str, ...]()
        evaluation, folder = None, None
        try:
            result = self._apply(recipe, baseline)
            notes = result.notes
            path = result.model.onnx_path()
            evaluation = publisher.bench.measure(path)
            limits = self._options.variant_limits.get(name, self._options.limits)
            verdict = judge(evaluation, measured, limits)
            if verdict.published:
                origin = Origin(
                    kind_of(recipe), dump_recipe(name, recipe), BASELINE, sha256_of(baseline.onnx_path())
                )
                folder = publisher.publish(name, path, evaluation, origin)
        except CompressorError as error:
            verdict = Verdict(published=False, reason=str(error))
        earlier = publisher.repository / publisher.model / name
        if folder is None and earlier.exists():
            left = (
                f"An earlier variant of this name was left as it is in {earlier}; remove it if it is stale."
            )
            verdict = Verdict(published=False, reason=f"{verdict.reason} {left}")
        return VariantOutcome(
            name, kind_of(recipe), verdict, evaluation, folder, passes, notes, time.monotonic() - started
        )

    def _apply(self, recipe: Pass, baseline: Model) -> PassResult:
        """Apply a recipe to the form of the model it starts from; whatever goes wrong is a PassError."""
        start = self._source if recipe.needs is self._source.form else baseline
        return run_foreign(
            lambda: self._memo.apply(recipe, start, self._context),
            lambda reason: PassError(f"The recipe failed on this model ({reason})."),
        )


def _digest(data: DataSet, training: DataSet | None) -> str:
    """Return one digest of everything the variants were made and judged with."""
    if training is None:
        return data.digest
    return hashlib.sha256((data.digest + training.digest).encode()).hexdigest()
