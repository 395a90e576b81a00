"""Compress a model: apply recipes, measure what came of them, publish what does no harm."""

import hashlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flyweight.compressor.asked import search_for
from flyweight.compressor.candidates import Candidate, candidates_of, default_candidates
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet, load_data
from flyweight.compressor.division import divide
from flyweight.compressor.errors import DataError
from flyweight.compressor.feeding import fit
from flyweight.compressor.model import Array, Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.options import Options
from flyweight.compressor.outcome import CompressionReport
from flyweight.compressor.passes.base import Form, Pass
from flyweight.compressor.run import Place, Run
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from torch import nn

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
    options, samples, started = options or Options(), _data_of(data), time.monotonic()
    source = _source_of(model, samples)
    plan = Budget.parse(plan) if isinstance(plan, str) else plan
    candidates = () if isinstance(plan, Budget) else _candidates(plan, source)
    trains = source.form is Form.TORCH or any(candidate.trains for candidate in candidates)
    rows = _rows_at_a_time(source, samples, options.training)
    division = divide(samples, options, trains=trains, rows=rows)
    with tempfile.TemporaryDirectory(prefix="flyweight-compress-") as folder:
        context = Context(
            workspace=Path(folder),
            calibration=division.calibration,
            training=division.training,
            baseline=source.module,
            progress=options.progress,
            seed=options.seed,
            threads=options.threads,
            deadline=started + options.time_limit_seconds,
        )
        place = Place(Path(repository), name, _digest(samples, options.training))
        tried = None
        if isinstance(plan, Budget):
            found = search_for(plan, source, context, division, options)
            candidates, division, tried = found.candidates, found.division, found.document
            options = replace(options, limits=found.limits)
        return Run(source, context, division, options).execute(candidates, place, tried)


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


def _candidates(plan: Mapping[str, Pass] | Pass | None, source: Model) -> tuple[Candidate, ...]:
    if plan is None:
        return default_candidates(source)
    return candidates_of({"compressed": plan} if isinstance(plan, Pass) else plan, source)


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


def _digest(data: DataSet, training: DataSet | None) -> str:
    """Return one digest of everything the variants were made and judged with."""
    if training is None:
        return data.digest
    return hashlib.sha256((data.digest + training.digest).encode()).hexdigest()
