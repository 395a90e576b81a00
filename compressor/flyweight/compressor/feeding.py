"""How samples of a data set become the feeds of a model: in batches, in groups of a fixed size, or singly.

The number of axes decides what the first axis of the user's array means. An array with as many axes as the
model's input has its samples along the batch axis; one with an axis more holds, for each sample, the whole
input, which then has no batch axis.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.data import LABEL, DataSet
from flyweight.compressor.errors import DataError
from flyweight.compressor.signature import Signature, TensorSpec, some_names

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """How many samples a run takes.

    Attributes:
        batched: the inputs whose first axis is the batch axis.
        rows: samples in every run; None when any number may be run at once.
    """

    batched: frozenset[str]
    rows: int | None

    def feed(self, rows: Mapping[str, Array]) -> dict[str, Array]:
        """Return what to feed for these samples; an input without a batch axis takes the only one."""
        return {
            name: np.asarray(array if name in self.batched else array[0], order="C")
            if array.dtype.kind not in "US"
            else (array if name in self.batched else array[0]).astype(object)
            for name, array in rows.items()
        }

    def feeds(self, data: DataSet, preferred_rows: int) -> Iterator[dict[str, Array]]:
        """Yield feeds for all samples in order, leaving out an incomplete last group of a fixed size."""
        rows = self.rows or preferred_rows
        for batch in data.batches(rows):
            if self.rows and len(next(iter(batch.values()))) < self.rows:
                return
            yield self.feed(batch)

    def usable(self, samples: int) -> int:
        """Return how many of `samples` samples are fed: all but an incomplete last group."""
        return samples if self.rows is None else samples - samples % self.rows

    def sample_feed(self, data: DataSet, rows: int) -> dict[str, Array]:
        """Return a feed of `rows` samples, repeating them when there are fewer."""
        indices = np.arange(rows) % data.samples
        return self.feed({name: array[indices] for name, array in data.inputs.items()})

    def notes(self, samples: int) -> tuple[str, ...]:
        """Say what a reader of the figures must know."""
        left_out = samples - self.usable(samples)
        if not left_out:
            return ()
        note = f"The model runs exactly {self.rows} rows at a time:"
        return (f"{note} the last {left_out} of {samples} samples were left out.",)


def fit(data: DataSet, signature: Signature) -> Layout:
    """Check that `data` holds what the model takes, and return how to feed it.

    Raises:
        DataError: an input is missing, or one is too many, or has the wrong type or shape.
    """
    wanted = [spec.name for spec in signature.inputs]
    for name in wanted:
        if name not in data.inputs:
            hint = f"The array named {LABEL!r} holds labels. " if name == LABEL else ""
            raise DataError(
                f"The data have no array for the model's input {name!r}; they have "
                f"{some_names(data.inputs)}. {hint}Name the arrays as the inputs: {some_names(wanted)}."
            )
    for name in data.inputs:
        if name not in wanted:
            raise DataError(
                f"The data have an array {name!r}, which is no input of the model; "
                f"its inputs are {some_names(wanted)}, and labels are called {LABEL!r}."
            )
    lengths = {spec.name: _fit_input(spec, data.inputs[spec.name]) for spec in signature.inputs}
    layout = _layout(lengths)
    if layout.usable(data.samples) == 0:
        raise DataError(
            f"The model runs exactly {layout.rows} rows at a time and the data have {data.samples} samples; "
            "give at least one whole group."
        )
    return layout


def _fit_input(spec: TensorSpec, array: Array) -> int | None:
    """Return the length of the batch axis: 0 for none, None for any."""
    same_type = array.dtype == spec.dtype or (spec.datatype == "BYTES" and array.dtype.kind in "US")
    if not same_type:
        wanted = "strings" if spec.datatype == "BYTES" else f"{spec.dtype}"
        raise DataError(
            f"Input {spec.name!r} is {array.dtype} in the data and {wanted} in the model; "
            f"convert it when you save it, with array.astype({_numpy_name(spec)})."
        )
    per_sample = array.shape[1:]
    if len(per_sample) == len(spec.shape) and _matches(per_sample, spec.shape):
        return 0
    if spec.shape and len(per_sample) == len(spec.shape) - 1 and _matches(per_sample, spec.shape[1:]):
        return spec.shape[0]
    given, wanted = _shape(("samples", *per_sample)), _shape(("samples", *spec.shape[1:]))
    meaning = "samples along the batch axis" if spec.shape else "one number for each sample"
    raise DataError(
        f"Input {spec.name!r} is {given} in the data and {_shape(spec.shape)} in the model; "
        f"save it as {wanted} ({meaning})."
    )


def _layout(lengths: Mapping[str, int | None]) -> Layout:
    batched = frozenset(name for name, length in lengths.items() if length != 0)
    fixed = {name: length for name, length in lengths.items() if length}
    whole = [name for name, length in lengths.items() if length == 0]
    rows = {*fixed.values(), *([1] if whole else [])}
    if len(rows) > 1:
        groups = ", ".join(f"{name}: {length}" for name, length in fixed.items())
        raise DataError(
            f"The model's inputs take different numbers of rows in one run ({groups}"
            + (f"; {', '.join(whole)}: one sample" if whole else "")
            + "); give each sample whole, with one axis more than the model's input."
        )
    return Layout(batched, rows.pop() if rows else None)


def _matches(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    return all(length is None or length == actual for actual, length in zip(shape, wanted, strict=True))


def _shape(shape: tuple[int | str | None, ...]) -> str:
    return "[" + ", ".join("?" if length is None else str(length) for length in shape) + "]"


def _numpy_name(spec: TensorSpec) -> str:
    return "np.str_" if spec.datatype == "BYTES" else f"np.{spec.dtype.name}"
