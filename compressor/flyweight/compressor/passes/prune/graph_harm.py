"""How much the answers of an ONNX graph change without some of a layer's weights, from one session."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx

from flyweight.compressor.feeding import fit
from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.prune.divergence import divergence
from flyweight.compressor.passes.prune.graph_weights import GraphWeight
from flyweight.compressor.passes.prune.masks import Mask
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

HARM_ROWS: Final = 64
"""Samples that harm is measured on; only the order of layers counts."""


class GraphHarm:
    """Measures the divergence of a graph's answers with one weight masked.

    The weights that are initializers of the main graph become inputs with a default, which a run may
    override: no session is built for a measurement. Weights elsewhere are not measured.
    """

    def __init__(self, model: onnx.ModelProto, weights: list[GraphWeight], context: "Context") -> None:
        """Build the session and run it once as it is.

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
        data = context.calibration.first(HARM_ROWS)
        self._feeds = list(fit(data, self._session.signature).feeds(data, HARM_ROWS))
        self._expected = self._answers({})

    def without(self, name: str, mask: Mask) -> float:
        """Return the harm of setting what the mask does not keep of one weight to zero."""
        weight = self.measurable[name]
        return divergence(self._expected, self._answers({name: np.where(mask, weight.values(), 0)}))

    def _answers(self, weights: Mapping[str, Array]) -> list[Array]:
        runs = [self._session.run({**feed, **weights}) for feed in self._feeds]
        return [output for run in runs for output in run.values()]
