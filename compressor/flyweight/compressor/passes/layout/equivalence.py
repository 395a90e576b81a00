"""Whether two graphs compute the same: asked of onnxruntime, on the user's data."""

from pathlib import Path
from typing import Final

import numpy as np

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.feeding import fit
from flyweight.compressor.sessions import Array, Session, SessionSettings

_SAMPLES: Final = 4
# Writing sums in another order changes the last of fp32's seven digits, and layers add such changes up; a
# graph that was put together wrongly differs in the first.
_TOLERANCE: Final = 1e-3


def check_same_answers(before: Path, after: Path, data: DataSet) -> float:
    """Return the largest difference of floating-point outputs, over their largest value, on a few samples.

    Raises:
        PassError: it is more than another order of summation explains, or `after` cannot be run.
        ModelError: one of the two cannot be loaded.
        DataError: the data do not fit the model.
    """
    settings = SessionSettings()
    first, second = Session(before, settings), Session(after, settings)
    difference = first.signature.difference(second.signature)
    if difference is not None:
        raise PassError(f"The rewritten graph takes or gives other tensors: {difference}.")
    layout = fit(data, first.signature)
    worst = 0.0
    for feed in layout.feeds(data.first(max(_SAMPLES, layout.rows or 0)), preferred_rows=2):
        theirs, ours = first.run(feed), second.run(feed)
        worst = max(worst, *(_distance(theirs[name], ours[name]) for name in theirs))
    if worst > _TOLERANCE:
        raise PassError(
            f"The rewritten graph's answers differ by {worst:.1e} of their range; it is not used."
        )
    return worst


def _distance(wanted: Array, given: Array) -> float:
    if wanted.shape != given.shape:
        return float("inf")
    if wanted.dtype.kind != "f" or not wanted.size:
        return 0.0
    known = np.isfinite(wanted)
    if not np.array_equal(known, np.isfinite(given)):
        return float("inf")
    if not known.any():
        return 0.0
    largest = float(np.abs(wanted[known]).max())
    return float(np.abs(wanted[known] - given[known]).max()) / max(largest, 1e-6)
