"""The rows of an .npz file, and how they become requests of a model."""

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from flyweight.client.results import Array, ModelInfo, TensorInfo
from flyweight.protos.errors import FlyweightError, TensorError
from flyweight.protos.tensors import datatype_of

LABEL: Final = "label"


class DataError(FlyweightError):
    """The data file cannot be read, or does not fit the model."""


@dataclass(frozen=True, slots=True)
class Feed:
    """Rows that fit a model, cut into requests.

    Attributes:
        inputs: by name, first axis = samples.
        labels: what the rows are, first axis = samples; None when the file does not say.
        rows_per_request: how many rows go into one request.
        batched: whether each input has a batch axis; one without goes out alone, a row's whole shape.
    """

    inputs: Mapping[str, Array]
    labels: Array | None
    rows_per_request: int
    batched: Mapping[str, bool]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.inputs.values())))

    @property
    def requests(self) -> int:
        """How many requests they make."""
        return -(-self.rows // self.rows_per_request)

    @property
    def answers_have_rows(self) -> bool:
        """Whether the first axis of an answer counts rows; a model without any batch axis has none there."""
        return any(self.batched.values())

    def __iter__(self) -> Iterator[dict[str, Array]]:
        """Yield the inputs of every request, in the order of the rows."""
        for start in range(0, self.rows, self.rows_per_request):
            stop = start + self.rows_per_request
            yield {
                name: array[start:stop] if self.batched[name] else array[start]
                for name, array in self.inputs.items()
            }


def read_arrays(path: Path) -> dict[str, Array]:
    """Read an .npz file, or a folder of them in the order of their names, without pickle.

    Raises:
        DataError: there is no such file, it is no .npz of plain arrays, or shards do not fit together.
    """
    shards = sorted(path.glob("*.npz")) if path.is_dir() else [path]
    if not shards:
        raise DataError(f"{path} holds no .npz file; put the data there or name the file.")
    read = [_read(shard) for shard in shards]
    for shard, arrays in zip(shards, read, strict=True):
        if arrays.keys() != read[0].keys():
            raise DataError(
                f"{shard} and {shards[0]} do not hold the same arrays; every shard needs them all."
            )
    try:
        return {name: np.concatenate([arrays[name] for arrays in read]) for name in read[0]}
    except ValueError as error:
        raise DataError(f"the arrays of {path} cannot be put together ({error}).") from error


def _read(path: Path) -> dict[str, Array]:
    if not path.is_file():
        raise DataError(f"the data file {path} does not exist; check the path given with --data.")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path} is not an .npz file; write one with np.savez(path, INPUT_NAME=array).")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: np.atleast_1d(file[name]) for name in file.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path} is not an .npz file of plain arrays ({reason}); use np.savez.") from error


def make_feed(path: Path, arrays: Mapping[str, Array], model: ModelInfo, batch_rows: int | None) -> Feed:
    """Check that arrays fit a model, and return them as requests of `batch_rows` rows.

    None is 1 row, or as many as the model wants.

    Raises:
        DataError: an input is missing, superfluous, or of the wrong datatype or shape; lengths differ;
            there is no row; or the model does not take batches of that size. The sentence names the file and
            the array.
    """
    named = {tensor.name: tensor for tensor in model.inputs}
    labels = arrays.get(LABEL) if LABEL not in named else None
    inputs = {name: array for name, array in arrays.items() if name in named or name != LABEL}
    if named.keys() != inputs.keys():
        raise DataError(
            f"{path} holds {_listed(inputs)}, and model {model.name!r} takes {_listed(named)}; save one "
            "array per input, named as the input."
        )
    _check_lengths(path, arrays)
    batched = {name: _check(path, tensor, inputs[name]) for name, tensor in named.items()}
    fixed = {tensor.shape[0] for name, tensor in named.items() if batched[name]} - {-1}
    if not all(batched.values()):
        fixed.add(1)
    rows = _rows_per_request(model.name, fixed, batch_rows)
    result = Feed(inputs, labels, rows, batched)
    if fixed and result.rows % rows:
        raise DataError(f"{path} holds {result.rows} rows, and model {model.name!r} takes {rows} at a time.")
    return result


def _check_lengths(path: Path, arrays: Mapping[str, Array]) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"the arrays of {path} have different numbers of rows ({told}).")
    if not any(lengths.values()):
        raise DataError(f"{path} holds no rows; give at least one.")


def _check(path: Path, tensor: TensorInfo, array: Array) -> bool:
    """Check one input; tell whether it has a batch axis."""
    try:
        datatype = datatype_of(array)
    except TensorError as error:
        raise DataError(f"array {tensor.name!r} of {path}: {error}") from error
    if datatype != tensor.datatype:
        raise DataError(
            f"array {tensor.name!r} of {path} is {array.dtype}, which travels as {datatype}, and the model "
            f"takes {tensor.datatype}; convert it."
        )
    batched = array.ndim == len(tensor.shape)
    wanted = tensor.shape[1:] if batched else tensor.shape
    given = array.shape[1:]
    if len(wanted) != len(given) or any(w not in (-1, g) for w, g in zip(wanted, given, strict=True)):
        raise DataError(
            f"a row of array {tensor.name!r} of {path} has shape {list(given)}, and the model's input is "
            f"{list(tensor.shape)}, batch axis included."
        )
    return batched


def _rows_per_request(model: str, fixed: set[int], asked: int | None) -> int:
    if len(fixed) > 1:
        raise DataError(f"the inputs of model {model!r} want batches of different sizes ({_listed(fixed)}).")
    if not fixed:
        return asked or 1
    rows = next(iter(fixed))
    if asked not in (None, rows):
        raise DataError(f"model {model!r} takes {rows} rows at a time, not {asked}; leave --batch-rows out.")
    return rows


def _listed(names: Iterable[object]) -> str:
    return ", ".join(str(name) for name in names) or "nothing"
