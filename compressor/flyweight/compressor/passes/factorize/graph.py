"""Factorisation of an ONNX graph's layers, with numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import onnx

from flyweight.compressor.feeding import fit
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import drop_initializer_inputs, lift_constants, load_graph, save_graph
from flyweight.compressor.passes.base import Form, PassResult
from flyweight.compressor.passes.factorize.layers import Layer, Watcher, factorise
from flyweight.compressor.passes.factorize.nodes import Candidate, candidates, rewrite
from flyweight.compressor.passes.factorize.settings import (
    CALIBRATION_ROWS,
    NOTHING_TO_GAIN,
    Factorization,
    describe,
)
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

_RUN_ROWS = 16
"""Rows in a run where the model leaves the choice: all layers' answers are held at once."""


@dataclass(frozen=True, slots=True)
class FactorizeGraph(Factorization):
    """Replaces Gemm, MatMul and Conv nodes by products of thinner ones, where that saves multiply-adds.

    For who has nothing but an ONNX file: ranks and factors follow what the layers answer on calibration data,
    so that little is lost without training. Weights that several nodes share, that are computed, or that sit
    in the body of a loop or branch are left alone.

    Attributes:
        energy: fraction of a layer's energy that stays; used where there is no budget. More than `factorize`
            keeps, since nothing is trained afterwards.
        budget: multiply-adds of all such layers together, as a fraction of what they are; None goes by
            energy.
        scheme: of kernels larger than 1 x 1.
        aware: whether layers' answers count, or their weights alone.
        round_to: ranks are multiples of this: kernels are fastest at multiples of 16.
    """

    name: ClassVar[str] = "factorize-graph"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    energy: float = 0.98

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the graph with factorised layers.

        Raises:
            PassError: the budget cannot be met.
            ModelError: the graph cannot be read or run.
            DataError: the calibration data do not fit it.
        """
        graph = load_graph(model.onnx_path())
        lift_constants(graph)
        drop_initializer_inputs(graph)
        found = candidates(graph)
        layers = _observed(graph, found, context, aware=self.aware) if found else []
        rungs = self.choose(layers, context.check_time) if layers else []
        if not any(rung.ranks for rung in rungs):
            return PassResult(model, changed=False, notes=(NOTHING_TO_GAIN,))
        stages = {}
        for layer, rung in zip(layers, rungs, strict=True):
            context.check_time()
            if rung.ranks:
                stages[layer.name] = factorise(layer, self.scheme, rung.ranks)
        rewrite(graph, {candidate.name: candidate for candidate in found}, stages)
        path = save_graph(graph, context.new_path("factorized"))
        return PassResult(Model(path=path), changed=True, notes=(describe(layers, rungs),))


def _observed(
    graph: onnx.ModelProto, found: Sequence[Candidate], context: "Context", *, aware: bool
) -> list[Layer]:
    """Run calibration data through the graph, and return the candidates with what they answered."""
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    present = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.ValueInfoProto(name=candidate.output) for candidate in found if candidate.output not in present
    )
    session = Session(save_graph(watched, context.new_path("watched")), SessionSettings(context.threads))
    layout = fit(context.calibration, session.signature)
    data = context.calibration.first(CALIBRATION_ROWS if aware else max(layout.rows or 1, 1))
    watchers = {c.output: Watcher(len(c.weight), centred=c.bias is not None) for c in found}
    places, samples = dict.fromkeys(watchers, 0), 0
    for feed in layout.feeds(data, _RUN_ROWS):
        context.check_time()
        answers = session.run(feed)
        samples += layout.rows or len(next(iter(feed.values())))
        for candidate in found:
            flat = candidate.flattened(answers[candidate.output])
            places[candidate.output] += len(flat)
            watchers[candidate.output].add(flat)
    return [
        candidate.layer(
            places[candidate.output] / max(samples, 1),
            watchers[candidate.output].responses() if aware else None,
        )
        for candidate in found
        if places[candidate.output]
    ]
