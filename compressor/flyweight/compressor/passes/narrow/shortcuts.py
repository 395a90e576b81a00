"""Residual blocks: what adds to its input, or could be left out without any shape changing."""

import copy
import operator
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from flyweight.compressor.passes.narrow.tracing import layer_of, shape_of, tidied
from flyweight.compressor.passes.prune.structured import count_parameters
from flyweight.compressor.watching import watched

_SUMS: Final = (operator.add, operator.iadd, torch.add)


class Block(ABC):
    """Something that can be left out of a module."""

    name: str

    @abstractmethod
    def removed_from(self, module: nn.Module) -> nn.Module:
        """Return the module without the block; it shares its layers with `module`, which does not change."""

    @abstractmethod
    def is_in(self, module: nn.Module) -> bool:
        """Return whether the module has the block (still)."""


@dataclass(frozen=True, slots=True)
class GraphBlock(Block):
    """x + f(x) in a traced module; node names are those of the graph.

    Attributes:
        name: the first layer of f, for the report.
        end: the sum.
        start: x.
    """

    name: str
    end: str
    start: str

    def removed_from(self, module: nn.Module) -> nn.Module:
        """Return the module with x in the place of the sum."""
        assert isinstance(module, fx.GraphModule), "found in a graph"
        graph = fx.Graph()
        output = graph.graph_copy(module.graph, val_map := dict[fx.Node, fx.Node]())
        graph.output(output)
        nodes = {node.name: val_map[node] for node in module.graph.nodes if node in val_map}
        nodes[self.end].replace_all_uses_with(nodes[self.start])
        shorter = tidied(fx.GraphModule(module, graph))
        return shorter.eval()

    def is_in(self, module: nn.Module) -> bool:
        """Return whether both ends are there."""
        assert isinstance(module, fx.GraphModule), "found in a graph"
        return {self.start, self.end} <= {node.name for node in module.graph.nodes}


def blocks_by_graph(graph: fx.GraphModule) -> list[Block]:
    """Return the residual blocks of a traced module, in the order of the run."""
    blocks = list[Block]()
    for node in graph.graph.nodes:
        is_sum = (node.op == "call_function" and node.target in _SUMS) or (
            node.op == "call_method" and node.target in {"add", "add_"}
        )
        if not is_sum or len(node.args) != 2 or not all(isinstance(arg, fx.Node) for arg in node.args):
            continue
        for start, end in (node.args, node.args[::-1]):
            layers = _layers_between(graph, start, end)
            if layers and shape_of(start) == shape_of(node) and shape_of(end) == shape_of(node):
                blocks.append(GraphBlock(layers[0], node.name, start.name))
                break
    return blocks


def _layers_between(graph: fx.GraphModule, start: fx.Node, end: fx.Node) -> list[str]:
    """Return the layers with parameters of a branch, in the order of the run; none if x passes it by.

    Something else than x, an attention mask say, may come in from outside, but not through layers that x
    came through.
    """
    inside, before = _behind(end, start), _behind(start)
    if any(node in before and node.op == "call_module" for node in inside):
        return []
    reached = any(start in node.all_input_nodes for node in inside)
    ordered = (node for node in graph.graph.nodes if node in inside)
    return [str(node.target) for node in ordered if _has_parameters(graph, node)] if reached else []


def _behind(node: fx.Node, until: fx.Node | None = None) -> set[fx.Node]:
    """Return a node and all that it is computed from, as far as `until`, which is left out."""
    waiting, seen = [node], set[fx.Node]()
    while waiting:
        current = waiting.pop()
        if current is not until and current not in seen:
            seen.add(current)
            waiting.extend(current.all_input_nodes)
    return seen


def _has_parameters(graph: fx.GraphModule, node: fx.Node) -> bool:
    layer = layer_of(graph, node)
    return layer is not None and any(True for _ in layer.parameters())


class Skipped(nn.Module):
    """In the place of a removed block: returns its first argument."""

    def forward(self, features: Tensor, *_others: object, **_options: object) -> Tensor:
        """Return the features as they came."""
        return features


@dataclass(frozen=True, slots=True)
class CalledBlock(Block):
    """A part of a module that returns a tensor of the shape of its first argument."""

    name: str

    def removed_from(self, module: nn.Module) -> nn.Module:
        """Return the module with a part that does nothing."""
        # Layers are shared: only the containers on the way to the block are copied.
        memo: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
        memo |= {id(buffer): buffer for buffer in module.buffers()}
        shorter = copy.deepcopy(module, memo)
        shorter.set_submodule(self.name, Skipped())
        return shorter

    def is_in(self, module: nn.Module) -> bool:
        """Return whether the part is there and does something."""
        names = dict(module.named_modules())
        return self.name in names and not isinstance(names[self.name], Skipped)


def blocks_by_call(module: nn.Module, example: Sequence[Tensor]) -> list[Block]:
    """Return the parts of a module that could be left out, for modules that cannot be traced.

    A part is one that holds other layers, has parameters but at most half of the module's, runs once, and
    keeps the shape and the type of its first input.
    """
    calls: dict[str, list[bool]] = {}

    def note(name: str, inputs: tuple[object, ...], output: object) -> None:
        first = inputs[0] if inputs else None
        calls.setdefault(name, []).append(
            isinstance(first, Tensor)
            and isinstance(output, Tensor)
            and (first.shape, first.dtype) == (output.shape, output.dtype)
        )

    most = count_parameters(module) / 2
    parts = {
        name: part
        for name, part in module.named_modules()
        # A single layer is no block, and what holds most of the parameters is the network.
        if any(True for _ in part.children()) and 0 < count_parameters(part) <= most
    }
    with watched(parts, note), torch.no_grad():
        module.eval()(*example)
    return [CalledBlock(name) for name, kept in calls.items() if kept == [True]]
