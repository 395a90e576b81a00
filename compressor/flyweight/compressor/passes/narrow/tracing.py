"""A module as a graph of calls (torch.fx), for passes that change how its layers are connected."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.torch_model import outputs_of


def traced(module: nn.Module, example: Sequence[Tensor]) -> fx.GraphModule:
    """Return a copy of a module as a graph, the shapes of its tensors known for `example`.

    Raises:
        PassError: forward() branches on its inputs, or does else what cannot be written down as calls.
    """

    def trace() -> fx.GraphModule:
        own = copy.deepcopy(module).eval()
        graph = own if isinstance(own, fx.GraphModule) else fx.symbolic_trace(own)
        shaped(graph, example)
        with torch.no_grad():
            expected, found = outputs_of(module(*example)), outputs_of(graph(*example))
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(other, one, equal_nan=True)
        return graph.eval()

    with quiet():
        return run_foreign(
            trace,
            lambda reason: PassError(
                f"The module cannot be traced as a graph of calls ({reason}); its forward() may branch on "
                "its inputs. Give the exported ONNX file instead, which is imported as such a graph."
            ),
        )


def shaped(graph: fx.GraphModule, example: Sequence[Tensor]) -> fx.GraphModule:
    """Learn the shapes of all tensors anew, after a change of sizes, in place."""
    with torch.no_grad():
        ShapeProp(graph).propagate(*example)
    return graph


def shape_of(node: object) -> tuple[int, ...] | None:
    """Return the shape of what a node returned for the example; None where that was no tensor."""
    if not isinstance(node, fx.Node):
        return None
    meta = node.meta.get("tensor_meta")
    shape = getattr(meta, "shape", None)
    return None if shape is None else tuple(shape)


def layer_of(graph: fx.GraphModule, node: object) -> nn.Module | None:
    """Return the layer that a node calls; None where it calls none."""
    if isinstance(node, fx.Node) and node.op == "call_module" and isinstance(node.target, str):
        return graph.get_submodule(node.target)
    return None


def is_called_once(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Return whether no other node calls the same layer, by this or another name."""
    layer = layer_of(graph, node)
    return sum(layer_of(graph, other) is layer for other in graph.graph.nodes) == 1


def tidied(graph: fx.GraphModule) -> fx.GraphModule:
    """Drop what nothing reads and compile the graph anew, in place."""
    graph.graph.eliminate_dead_code()
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    graph.recompile()
    return graph
