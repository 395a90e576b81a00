"""How much the answers of an ONNX graph change without some of a layer's weights, from one session."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from flyweight.compressor.feeding import fit
from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.prune.divergence import divergence, relative_error
from flyweight.compressor.passes.prune.graph_weights import GraphWeight
from flyweight.compressor.passes.prune.masks import Mask
from flyweight.compressor.passes.quantize.calibration import takes
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.data import DataSet

HARM_ROWS: Final = 64
"""Samples that harm is measured on; only the order of layers counts."""


class GraphHarm:
    """Measures the divergence of a graph's answers with one weight masked.

    The weights that are initializers of the main graph become inputs with a default, which a run may
    override: no session is built for a measurement. Weights elsewhere are not measured.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: list[GraphWeight],
        context: "Context",
        *,
        among: NDArray[np.intp] | None = None,
    ) -> None:
        """Build the session and run it once as it is.

        Args:
            model: the graph, unchanged.
            weights: that will be changed.
            context: whose calibration data answers are measured on.
            among: the samples to choose from, all where it is None.

        Raises:
            ModelError: the graph cannot be loaded or run.
            DataError: the calibration data do not fit it.
        """
        copied = onnx.ModelProto()
        copied.CopyFrom(model)
        listed = {value.name for value in copied.graph.input}
        stored = {tensor.name: tensor for tensor in copied.graph.initializer}
        self.measurable = {weight.name: weight for weight in weights if weight.name in stored}
        """The weights whose harm can be measured, by name."""
        for name in self.measurable.keys() - listed:
            tensor = stored[name]
            value = onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            copied.graph.input.append(value)
        path = save_graph(copied, context.new_path("sensitivity"))
        self._session = Session(path, SessionSettings(threads=context.threads))
        self._feeds = self._feeds_of(context.calibration, among)
        self._expected = self._answers({})

    def _feeds_of(self, data: "DataSet", among: NDArray[np.intp] | None) -> list[dict[str, Array]]:
        layout = fit(data, self._session.signature)
        pool = np.arange(data.samples) if among is None else among
        # Samples repeat where they are fewer than a model of fixed batches takes.
        chosen = data.take(np.resize(pool, max(min(len(pool), HARM_ROWS), layout.rows or 1)))
        rows = HARM_ROWS if takes(self._session, layout, chosen, HARM_ROWS) else 1
        return list(layout.feeds(chosen, rows))

    @property
    def is_measurable(self) -> bool:
        """Whether any answer is in floating point, so that noise shows in it."""
        return any(np.issubdtype(answer.dtype, np.floating) for answer in self._expected)

    def without(self, name: str, mask: Mask) -> float:
        """Return the harm of setting what the mask does not keep of one weight to zero."""
        return self.of({name: np.where(mask, self.measurable[name].values(), 0)})

    def of(self, weights: Mapping[str, Array]) -> float:
        """Return the harm of other values for some weights, given by their names."""
        return divergence(self._expected, self._answers(weights))

    def noise_of(self, weights: Mapping[str, Array]) -> float:
        """Return the relative squared error of the answers with other values for some weights.

        Of few samples it says more than a divergence, which is that of the few that were in doubt.
        """
        return sum(
            relative_error(before, after)
            for before, after in zip(self._expected, self._answers(weights), strict=True)
            if np.issubdtype(before.dtype, np.floating)
        )

    def _answers(self, weights: Mapping[str, Array]) -> list[Array]:
        runs = [self._session.run({**feed, **weights}) for feed in self._feeds]
        return [output for run in runs for output in run.values()]
