"""Compress a model: apply recipes, measure what came of them, publish what does no harm."""

import hashlib
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flyweight.compressor.asked import Found, search_for
from flyweight.compressor.caching import default_folder
from flyweight.compressor.candidates import Candidate, candidates_of, default_candidates, worth_training
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet, check_usable, load_data
from flyweight.compressor.disk import disk_troubles_told
from flyweight.compressor.division import Division, divide
from flyweight.compressor.errors import DataError, ModelError
from flyweight.compressor.feeding import fit
from flyweight.compressor.model import Array, Model
from flyweight.compressor.one_hot import read_labels
from flyweight.compressor.options import Options
from flyweight.compressor.outcome import CompressionReport
from flyweight.compressor.passes.base import Form, Pass
from flyweight.compressor.publish import check_repository
from flyweight.compressor.run import Place, Run
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.soundness import check_source
from flyweight.compressor.workspace import workspace

if TYPE_CHECKING:
    from torch import nn

_TRANSFERRED: Final = (
    "The baseline is the given model with a new head, trained on the labels of the training data."
)
Plan = Mapping[str, Pass] | Pass | Budget | str | None
Data = DataSet | Path | str | Mapping[str, Array]


def compress(
    model: "Model | nn.Module | Path | str",
    plan: Plan = None,
    *,
    data: Data,
    repository: Path | str,
    name: str,
    options: Options | None = None,
) -> CompressionReport:
    """Compress a model and publish it with those variants that do no harm.

    A recipe that fails, or whose outcome is worse than asked, is told in the report and changes nothing.

    Args:
        model: an ONNX file by its path, or a torch module.
        plan: what to make: passes by variant name, or one pass (its variant is called `compressed`); or what
            to reach: a budget such as "latency<=50%, size<=25%, accuracy>=-0.5pt", for which recipes are
            searched. None tries what suits the model.
        data: to calibrate and to judge with: a file, arrays by input name, or a DataSet; `label` is optional.
        repository: the folder of models, made when it is not there.
        name: what clients will call the model.
        options: everything else.

    Raises:
        ModelError: the model cannot be read or run.
        DataError: the data do not fit the model.
        SearchError: nothing that was tried meets the budget; it says what came nearest.
        RecipeError: a recipe's name cannot name a variant, or its passes do not fit the model.
        RepositoryError: the repository cannot be written, or holds another model of this name.
        Stopped: Ctrl-C; a KeyboardInterrupt that carries the report of what was found until then.
    """
    started = time.monotonic()
    options = options or Options()
    with disk_troubles_told(options.work_folder or default_folder()), workspace() as folder:
        samples = _data_of(data)
        check_usable(samples)
        source = _source_of(model, samples)
        plan = Budget.parse(plan) if isinstance(plan, str) else plan
        trains = _trains(plan, source, samples.samples) or options.transfer
        place = Place(Path(repository), name, _digest(samples, options.training))
        rows = _rows_at_a_time(source, samples, options.training, place)
        samples, options, notes = read_labels(source, samples, options)
        division = divide(samples, options, trains=trains, rows=rows)
        context = _context(folder, source, division, options, started)
        if options.transfer:
            source, notes = _transferred(source, context), (*notes, _TRANSFERRED)
            context = replace(context, baseline=source.module)
        division = replace(division, notes=(*division.notes, *notes))
        if isinstance(plan, Budget):
            found = search_for(plan, source, context, division, options)
        else:
            found = Found(_candidates(plan, source, samples.samples), division, options.limits)
        options = replace(options, limits=found.limits)
        return Run(source, context, found.division, options).execute(found.candidates, place, found.document)


def _trains(plan: Mapping[str, Pass] | Pass | Budget | None, source: Model, samples: int) -> bool:
    """Tell whether something may train, so that samples have to be kept for it.

    Raises:
        RecipeError: a recipe's name cannot name a variant, or its passes do not fit the model.
    """
    if isinstance(plan, Budget):
        return worth_training(source, samples)
    candidates = _candidates(plan, source, samples)
    return source.form is Form.TORCH or any(candidate.trains for candidate in candidates)


def _context(workspace: Path, source: Model, division: Division, options: Options, started: float) -> Context:
    """Return the surroundings of all passes; the user's time began at `started`."""
    return Context(
        workspace=workspace,
        calibration=division.calibration,
        training=division.training,
        baseline=source.module,
        progress=options.progress,
        seed=options.seed,
        threads=options.threads,
        deadline=started + options.time_limit_seconds,
    )


def _transferred(source: Model, context: Context) -> Model:
    """Return the model with a head for the classes of the training labels, trained on them.

    Raises:
        PassError: there are no labels, no head was found, or the file cannot be imported.
    """
    from flyweight.compressor.passes.transfer import Surroundings, transfer

    if source.form is Form.ONNX:
        from flyweight.compressor.passes.importing import Import

        source = Import()(source, context).model
    around = Surroundings(context.seed, context.threads, context.progress, context.deadline)
    data = context.training if context.training is not None else context.calibration
    return transfer(source, data, surroundings=around).model


def _data_of(data: Data) -> DataSet:
    if isinstance(data, DataSet):
        return data
    if isinstance(data, Mapping):
        inputs = dict(data)
        labels = inputs.pop("label", None)
        return DataSet(inputs, labels)
    return load_data(Path(data))


def _source_of(model: "Model | nn.Module | Path | str", data: DataSet) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, Path | str):
        return Model(path=Path(model))
    from flyweight.compressor.torch_model import model_of

    return model_of(model, data)


def _candidates(plan: Mapping[str, Pass] | Pass | None, source: Model, samples: int) -> tuple[Candidate, ...]:
    if plan is None:
        return default_candidates(source, samples)
    return candidates_of({"compressed": plan} if isinstance(plan, Pass) else plan, source)


def _rows_at_a_time(source: Model, data: DataSet, training: DataSet | None, place: Place) -> int | None:
    """Check everything that can be before the data are divided, and return how many rows the model runs.

    Raises:
        ModelError: the model cannot be loaded, or is broken.
        DataError: the data do not fit it.
        RepositoryError: the repository cannot be written, or holds another model of this name.
    """
    if source.form is Form.TORCH:
        _check_module(source.torch_module())
        if training is not None:
            _check_training(training, source)
        return None
    check_source(source.onnx_path())
    session = Session(source.onnx_path(), SessionSettings(optimise=False))
    rows = fit(data, session.signature).rows
    if training is not None:
        try:
            fit(training, session.signature)
        except DataError as error:
            raise DataError(f"The training data do not fit the model. {error}") from error
    check_repository(place.repository, place.model, session.signature.inputs)
    return rows


def _check_module(module: "nn.Module") -> None:
    """Check that no tensor of a module is not-a-number, and that no parameter is infinite.

    An infinite buffer may be meant: the mask of a causal attention holds minus infinities.
    """
    parameters = {name for name, _ in module.named_parameters()}
    for name, tensor in module.state_dict().items():
        values = tensor.detach()
        found = "not-a-number" if bool(values.isnan().any()) else None
        if found is None and name in parameters and bool(values.isinf().any()):
            found = "infinite values"
        if found is not None:
            raise ModelError(
                f"The module's weight {name!r} holds {found}: training diverged, or the file is damaged; "
                "give sound weights."
            )


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


def _digest(data: DataSet, training: DataSet | None) -> str:
    """Return one digest of everything the variants were made and judged with."""
    if training is None:
        return data.digest
    return hashlib.sha256((data.digest + training.digest).encode()).hexdigest()
