"""Builds a torch.fx graph one call at a time, running each call on a sample as it goes.

What does not depend on the inputs never becomes part of the graph: it is computed here, once.
"""

import math
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from flyweight.compressor.importer.names import Names, identifier, layer_path, parameter_path
from flyweight.compressor.importer.values import (
    Number,
    Numbers,
    Symbol,
    Value,
    as_tensor,
    replaced,
    symbols_in,
)

# Larger constants stand for minus infinity in masks; they are nobody's weights.
_LARGEST_WEIGHT: Final = 1e30


class Builder:
    """The module under construction; used from one thread, inside torch.no_grad()."""

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self._root: dict[str, nn.Module | Tensor] = {}
        self._names = Names()
        self._placed: dict[object, fx.Node] = {}
        self._layers: dict[object, str] = {}
        self._parameters: dict[object, nn.Parameter] = {}

    def input(self, name: str, known: Tensor) -> Symbol:
        """Add an argument of forward()."""
        return Symbol(self.graph.placeholder(identifier(name)), known)

    def call(self, function: Callable[..., object], *arguments: object, **options: object) -> Symbol:
        """Call a function of tensors and numbers, now on the sample and later in the module.

        Symbols may sit inside lists. A function with several results gives a symbol that `part` takes apart.
        """
        known = function(
            *(replaced(argument, _known) for argument in arguments),
            **{name: replaced(option, _known) for name, option in options.items()},
        )
        if all(symbol.is_constant for symbol in symbols_in([*arguments, *options.values()])):
            return Symbol(None, known)
        nodes = self._arguments(arguments)
        named = {name: self._arguments([option])[0] for name, option in options.items()}
        return Symbol(self.graph.call_function(function, nodes, named), known)

    def method(self, name: str, on: Symbol, *arguments: object) -> Symbol:
        """Call a method of a tensor."""
        known = getattr(on.known, name)(*(replaced(argument, _known) for argument in arguments))
        if all(symbol.is_constant for symbol in symbols_in([on, *arguments])):
            return Symbol(None, known)
        nodes = self._arguments([on, *arguments])
        return Symbol(self.graph.call_method(name, nodes), known)

    def part(self, several: Symbol, index: int) -> Symbol:
        """Return one of several results."""
        return self.call(operator.getitem, several, index)

    def size(self, of: Symbol, axis: int) -> Symbol:
        """Return the length of an axis, free to differ in the next call of the module."""
        return self.method("size", of, axis % max(of.rank, 1))

    def layer(
        self, module: nn.Module, names: Collection[str], node: str, *arguments: Symbol | None
    ) -> Symbol:
        """Call a layer; one with the same parameters and settings is the same layer called again.

        Args:
            module: the layer.
            names: of its parameters in the graph, which name it.
            node: the name of the node, which names it otherwise.
            arguments: the layer is called with.
        """
        known = module(*(None if argument is None else argument.known for argument in arguments))
        key = (tuple(names), repr(module)) if any(names) else object()
        if key not in self._layers:
            path = self._names.claim(layer_path(names, node, type(module).__name__.lower()))
            self._layers[key] = path
            self._root[path] = module
        target = self._layers[key]
        # call_module wants the target to be there; GraphModule is only made at the end.
        nodes = self._arguments(arguments)
        made = self.graph.create_node("call_module", target, nodes)
        return Symbol(made, known)

    def parameter(self, value: Symbol) -> nn.Parameter:
        """Return a constant as a parameter for a layer; the same initializer is the same parameter."""
        key: object = value.origin or value
        if key not in self._parameters:
            self._parameters[key] = nn.Parameter(value.tensor.detach().clone())
        return self._parameters[key]

    def tensor(self, value: Value) -> Symbol:
        """Return a value as a tensor, also where it was kept as numbers."""
        if isinstance(value, Symbol):
            return value
        if value.is_constant:
            return Symbol(None, as_tensor(value))
        shape = [1] if value.has_axis else []
        parts = [self.call(torch.full, shape, item, dtype=value.dtype) for item in value.items]
        return self.call(torch.cat, parts) if value.has_axis else parts[0]

    def finish(self, outputs: Sequence[Symbol]) -> fx.GraphModule:
        """Return the module, in evaluation mode; one output is returned alone, several as a tuple."""
        nodes = self._arguments(outputs)
        self.graph.output(nodes[0] if len(nodes) == 1 else nodes)
        self.graph.eliminate_dead_code(is_impure_node=lambda node: node.op in {"placeholder", "output"})
        used = {node.target for node in self.graph.nodes if node.op in {"get_attr", "call_module"}}
        root = {path: value for path, value in self._root.items() if path in used}
        module = fx.GraphModule(root, self.graph, "Imported")
        module.eval()
        return module

    def _arguments(self, arguments: Sequence[object]) -> tuple[Argument, ...]:
        """Return what stands for the arguments of a call in the module's code."""
        nodes: Any = tuple(replaced(argument, self._node) for argument in arguments)
        return cast("tuple[Argument, ...]", nodes)

    def _node(self, symbol: Symbol) -> object:
        """Return what stands for a symbol in the module's code."""
        if symbol.node is not None:
            return symbol.node
        if not isinstance(symbol.known, Tensor):
            return symbol.known
        key: object = symbol.origin or symbol
        if key not in self._placed:
            path = self._names.claim(parameter_path(symbol.origin))
            self._root[path] = self._stored(symbol)
            self._placed[key] = self.graph.create_node("get_attr", path)
        return self._placed[key]

    def _stored(self, symbol: Symbol) -> Tensor:
        tensor = symbol.tensor.detach()
        if symbol.origin and _is_weight(tensor):
            return self.parameter(symbol)
        return tensor.clone()


def _known(symbol: Symbol) -> object:
    return symbol.known


def _is_weight(tensor: Tensor) -> bool:
    """Tell weights from masks, indices and literal numbers."""
    if not tensor.is_floating_point() or tensor.numel() < 2:
        return False
    largest = float(tensor.abs().max())
    return math.isfinite(largest) and largest < _LARGEST_WEIGHT


def numbers(items: Sequence[Symbol | Number], dtype: torch.dtype = torch.int64) -> Numbers:
    """Return numbers along one axis."""
    symbols = tuple(item if isinstance(item, Symbol) else Symbol(None, item) for item in items)
    return Numbers(symbols, has_axis=True, dtype=dtype)
