"""Which range each activation takes on the calibration data, one batch in memory at a time.

onnxruntime's own percentile and entropy calibrators keep every intermediate tensor of every batch.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from flyweight.compressor.errors import ModelError, PassError, RecipeError
from flyweight.compressor.feeding import Layout, fit
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.quantize.histogram import Extremes, Histogram
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.data import DataSet

Array = NDArray[Any]
Method = Literal["minmax", "percentile", "entropy", "mse"]
Range = tuple[float, float]

METHODS: Final[tuple[Method, ...]] = ("minmax", "percentile", "entropy", "mse")

# Activations of one batch held at once; more rows than 32 gain nothing.
_BUDGET_BYTES: Final = 64 << 20
_MOST_ROWS: Final = 32


@dataclass(frozen=True, slots=True)
class Observer:
    """Runs the data through a model whose activations were made outputs."""

    session: Session
    layout: Layout
    data: "DataSet"
    names: Sequence[str]
    rows: int

    def activations(self, context: "Context", what: str) -> Iterator[tuple[int, Mapping[str, Array]]]:
        """Yield, for one batch after the other, its rows and the observed tensors."""
        rows = self.layout.rows or self.rows
        total = -(-self.layout.usable(self.data.samples) // rows)
        for done, feed in enumerate(self.layout.feeds(self.data, rows)):
            context.check_time()
            context.progress(what, done, total)
            values = self.session.run(feed)
            count = self.layout.rows or len(next(iter(feed.values())))
            yield count, {name: values[name] if name in values else feed[name] for name in self.names}
        context.progress(what, total, total)


def check_method(method: str, percentile: float) -> None:
    """Check how ranges are to be chosen.

    Raises:
        RecipeError: there is no such way, or the percentile has no meaning.
    """
    if method not in METHODS:
        raise RecipeError(f"calibration is minmax, percentile, entropy or mse, not {method!r}.")
    if not 50 < percentile <= 100:
        raise RecipeError(f"percentile is above 50 and at most 100, not {percentile}.")


def observe_ranges(
    model: onnx.ModelProto, names: Sequence[str], method: Method, percentile: float, context: "Context"
) -> dict[str, Range]:
    """Return the range of each tensor in `names` over the context's calibration data.

    A tensor that never had a finite value is left out.

    Raises:
        DataError: the data do not fit the model.
        PassError: nothing at all was seen.
    """
    observer = _observer(model, names, context)
    extremes = {name: Extremes() for name in names}
    for _, batch in observer.activations(context, "calibrating"):
        for name, values in batch.items():
            extremes[name].add(values)
    seen = {name: extreme for name, extreme in extremes.items() if extreme.seen}
    if not seen:
        raise PassError("No activation had a finite value on the calibration data; check the data.")
    if method == "minmax":
        return {name: (extreme.low, extreme.high) for name, extreme in seen.items()}
    histograms = {name: Histogram(extreme.low, extreme.high) for name, extreme in seen.items()}
    for _, batch in observer.activations(context, "counting values"):
        for name, histogram in histograms.items():
            histogram.add(batch[name])
    return {name: _range(histogram, method, percentile) for name, histogram in histograms.items()}


def _range(histogram: Histogram, method: Method, percentile: float) -> Range:
    if method == "percentile":
        return histogram.percentile_range(percentile)
    return histogram.entropy_range() if method == "entropy" else histogram.mse_range()


def symmetric(ranges: Mapping[str, Range]) -> dict[str, Range]:
    """Return each range widened to be symmetric about zero; one that begins or ends at zero keeps its side.

    The zero point is then 128, or 0 for what is never negative.
    """
    return {
        name: (low, high) if low >= 0 or high <= 0 else (-max(-low, high), max(-low, high))
        for name, (low, high) in ranges.items()
    }


def observe(
    model: onnx.ModelProto, names: Sequence[str], context: "Context", what: str
) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Yield, for one batch of the calibration data after the other, its rows and the tensors in `names`.

    Raises:
        DataError: the data do not fit the model.
    """
    yield from _observer(model, names, context).activations(context, what)


def _observer(model: onnx.ModelProto, names: Sequence[str], context: "Context") -> Observer:
    path = _observed(model, names, context.new_path("calibrate"))
    session = Session(path, SessionSettings(threads=context.threads))
    layout = fit(context.calibration, session.signature)
    feed = layout.feed(context.calibration.rows(0, layout.rows or 1))
    size = sum(array.nbytes for array in session.run(feed).values())
    rows = max(1, min(_MOST_ROWS, _BUDGET_BYTES // max(size, 1)))
    if rows > 1 and not takes(session, layout, context.calibration, rows):
        rows = 1
    return Observer(session, layout, context.calibration, names, rows)


def takes(session: Session, layout: Layout, data: "DataSet", rows: int) -> bool:
    """Tell whether the model runs several rows at once; some files promise it and have one row built in."""
    if layout.rows is not None:
        return True
    try:
        session.run(layout.sample_feed(data, rows))
    except ModelError:
        return False
    return True


def _observed(model: onnx.ModelProto, names: Sequence[str], path: Path) -> Path:
    """Write the model with `names` as further outputs."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    present = {value.name for value in (*observed.graph.output, *observed.graph.input)}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    return save_graph(observed, path)


def float32_range(limits: Range) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return a range as onnxruntime's quantizer wants it."""
    return np.array(limits[0], dtype=np.float32), np.array(limits[1], dtype=np.float32)
