"""Unstructured pruning of an ONNX graph as it is, without torch and without training."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Array, Model
from flyweight.compressor.onnx_model import lift_constants, load_graph, save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.prune.allocation import Point
from flyweight.compressor.passes.prune.choice import Target, choose, combined, measured_curves
from flyweight.compressor.passes.prune.graph_harm import GraphHarm
from flyweight.compressor.passes.prune.graph_weights import GraphWeight, graph_weights
from flyweight.compressor.passes.prune.masks import Scores
from flyweight.compressor.passes.prune.scope import Scope

if TYPE_CHECKING:
    import onnx

    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class SparsifyGraph(Pass):
    """Sets the weights of smallest magnitude to zero (Han et al. 2015, section 3), in the graph itself.

    The same rules as `sparsify`, where a torch module can also be retrained; here nothing makes up for what
    is lost, so much less can go. ONNX Runtime is not faster with zeros: they make the coded or compressed
    file smaller.

    Attributes:
        ratio: fraction of the weights that becomes zero, at least 0, below 1.
        threshold: instead, weights of a magnitude up to this become zero.
        pattern: instead, N:M such as "2:4": N of every M weights along the input channels stay.
        scope: whether each layer loses `ratio`, one threshold cuts across all layers, on magnitudes (global)
            or on their part of what the layer has left (lamp), or each layer's ratio follows from the harm
            that is measured on calibration samples when it alone is pruned.
    """

    name: ClassVar[str] = "sparsify-graph"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    ratio: float = 0.3
    threshold: float | None = None
    pattern: str | None = None
    scope: Scope = Scope.GLOBAL

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one is out of its range.
        """
        Target(self.ratio, self.threshold, self.pattern, self.scope)

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model with zeros among its weights.

        Raises:
            PassError: the graph stores no floating-point weights that could go.
            ModelError: the graph cannot be run, where harm is to be measured.
        """
        graph = load_graph(model.onnx_path())
        lift_constants(graph)
        weights = graph_weights(graph)
        if not weights:
            raise PassError("The graph stores no floating-point weights of layers that could become zeros.")
        values = {weight.name: weight.values() for weight in weights}
        scores = {
            name: combined(np.abs(array.astype(np.float32)), array != 0) for name, array in values.items()
        }
        axes = {weight.name: weight.input_axis for weight in weights}
        target = Target(self.ratio, self.threshold, self.pattern, self.scope)
        masks = choose(scores, axes, target, lambda: _curves(graph, weights, scores, context))
        gone = 0
        for weight in weights:
            array, mask = values[weight.name], masks[weight.name]
            gone += int((~mask & (array != 0)).sum())
            weight.write(np.where(mask & (array != 0), array, np.zeros_like(array)))
        if not gone:
            return PassResult(model, changed=False, notes=("Every weight asked for was zero already.",))
        path = save_graph(graph, context.new_path("sparsify-graph"))
        return PassResult(Model(path=path), changed=True, notes=(_describe(weights),))


def _curves(
    graph: "onnx.ModelProto",
    weights: list[GraphWeight],
    scores: Mapping[str, Scores],
    context: "Context",
) -> dict[str, list[Point]]:
    harm = GraphHarm(graph, weights, context)
    measurable = {name: layer for name, layer in scores.items() if name in harm.measurable}

    def between(done: int, total: int) -> None:
        context.check_time()
        context.progress("measuring layers", done, total)

    unknown: dict[str, list[Point]] = {name: [] for name in scores}
    return {**unknown, **measured_curves(measurable, harm.without, between)}


def _describe(weights: list[GraphWeight]) -> str:
    arrays: dict[str, Array] = {weight.name: weight.values() for weight in weights}
    shares = {name: float((array == 0).mean()) for name, array in arrays.items()}
    total = sum(array.size for array in arrays.values())
    zeros = sum(int((array == 0).sum()) for array in arrays.values())
    least, most = min(shares, key=shares.__getitem__), max(shares, key=shares.__getitem__)
    return (
        f"{zeros / total:.1%} of {total:,} weights in {len(arrays)} layers are zero "
        f"(from {shares[least]:.0%} in {least} to {shares[most]:.0%} in {most})."
    )
