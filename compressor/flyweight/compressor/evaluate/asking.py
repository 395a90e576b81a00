"""Asking a model for its answers on a whole data set, in the largest steps it can take."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.context import Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError
from flyweight.compressor.feeding import Layout, fit
from flyweight.compressor.sessions import Session

Array = NDArray[Any]
Answers = dict[str, Array]

_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Asking:
    """How a data set is put to a model.

    Attributes:
        layout: what the inputs' first axes mean.
        rows: samples in one run.
        notes: what a reader of the figures must know.
    """

    layout: Layout
    rows: int
    notes: tuple[str, ...] = ()

    def answers(self, session: Session, data: DataSet, progress: Progress = silent) -> Iterator[Answers]:
        """Yield the outputs of one run after the other, the first axis counting samples in each.

        Raises:
            ModelError: the model fails, or an output does not tell its samples apart.
        """
        total = -(-self.layout.usable(data.samples) // self.rows)
        done = 0
        for done, feed in enumerate(self.layout.feeds(data, self.rows), start=1):
            rows = min(self.rows, data.samples - (done - 1) * self.rows)
            yield {name: self._by_sample(name, value, rows) for name, value in session.run(feed).items()}
            progress("answering", done, total)

    def _by_sample(self, name: str, value: Array, rows: int) -> Array:
        if self.layout.batched and value.ndim and len(value) == rows:
            return value
        if rows == 1:
            return value[None]
        raise ModelError(
            f"Output {name!r} has shape {list(value.shape)} for {rows} rows, so its samples cannot be told "
            "apart; export the model with a batch axis in every output."
        )

    def batches(self, wanted: tuple[int, ...]) -> tuple[int, ...]:
        """Return those batch sizes of `wanted` that the model can run, or the only one it has."""
        if self.layout.rows is not None:
            return (self.layout.rows,)
        return wanted if self.rows > 1 else (1,)


def plan_asking(session: Session, data: DataSet) -> Asking:
    """Find out how many rows a model takes at once: a free batch axis in the file is a promise, not a fact.

    Raises:
        DataError: the data do not fit the model.
        ModelError: the model cannot run on the first sample.
    """
    layout = fit(data, session.signature)
    notes = layout.notes(data.samples)
    if not _repeats_itself(session, layout.sample_feed(data, layout.rows or 1)):
        notes = (*notes, "The model answers differently every time: agreement with it says little.")
    if layout.rows is not None:
        return Asking(layout, layout.rows, notes)
    if _separates_rows(session, layout, data):
        return Asking(layout, _ROWS, notes)
    note = "The model does not give one answer for each of several rows, so it was run row by row."
    return Asking(layout, 1, (*notes, note))


def _repeats_itself(session: Session, feed: dict[str, Array]) -> bool:
    first, again = session.run(feed), session.run(feed)
    return all(
        np.array_equal(first[name], again[name], equal_nan=first[name].dtype.kind == "f") for name in first
    )


def _separates_rows(session: Session, layout: Layout, data: DataSet) -> bool:
    """Tell whether outputs grow with the batch: they have 2 and 3 rows for 2 and 3 samples."""
    try:
        return all(
            value.ndim > 0 and len(value) == rows
            for rows in (2, 3)
            for value in session.run(layout.sample_feed(data, rows)).values()
        )
    except ModelError:
        return False
