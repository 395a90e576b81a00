"""Finding activation functions that an exporter or author wrote as several calls, by what they compute."""

import operator
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from flyweight.compressor.passes.narrow.tracing import layer_of

Function = Callable[[Tensor], Tensor]

_SMOOTH: Final[tuple[Function, ...]] = (
    functional.silu,
    functional.gelu,
    lambda x: functional.gelu(x, approximate="tanh"),
    lambda x: x * torch.sigmoid(1.702 * x),
    functional.mish,
    functional.elu,
    functional.selu,
    functional.softplus,
)
_SEEDS: Final = frozenset(
    {
        *(torch.sigmoid, torch.erf, torch.tanh, torch.exp, functional.sigmoid, functional.tanh),
        *(functional.hardsigmoid, functional.silu, functional.gelu, functional.mish, functional.elu),
        *(functional.selu, functional.softplus, functional.hardswish),
    }
)
_SEED_METHODS: Final = frozenset({"sigmoid", "erf", "tanh", "exp"})
_SEED_LAYERS: Final = (nn.Sigmoid, nn.Tanh, nn.Hardsigmoid)
_ARITHMETIC: Final = frozenset(
    {
        *(operator.add, operator.mul, operator.sub, operator.truediv, operator.pow, operator.neg),
        *(torch.add, torch.mul, torch.sub, torch.div, torch.pow, torch.neg, torch.clamp),
    }
)
_ARITHMETIC_METHODS: Final = frozenset({"add", "mul", "sub", "div", "pow", "neg", "clamp"})
_PROBE: Final = torch.linspace(-6.0, 6.0, 97)
_LONGEST: Final = 8
"""Calls from the input of the longest known form of an activation, GELU by tanh, to its end."""


def smooth_activations(graph: fx.GraphModule, *, hard_swish: bool) -> list[tuple[fx.Node, fx.Node]]:
    """Return the ends of activation functions that are written as calls, and what they are functions of.

    An island of elementwise calls is an activation where it gives, for 97 numbers from -6 to 6, what the
    activation gives; so the order in which it is written does not matter.

    Args:
        graph: a traced module.
        hard_swish: whether that counts as one.
    """
    functions = (*_SMOOTH, functional.hardswish) if hard_swish else _SMOOTH
    targets = [function(_PROBE) for function in functions]
    found: list[tuple[fx.Node, fx.Node]] = []
    for seed in graph.graph.nodes:
        if _is_seed(graph, seed) and not any(end is seed for end, _ in found):
            match = _match(graph, seed, targets)
            if match is not None:
                found.append(match)
    return found


def _match(graph: fx.GraphModule, seed: fx.Node, targets: list[Tensor]) -> tuple[fx.Node, fx.Node] | None:
    for source in _sources(seed):
        for end in _ends(seed):
            value = _evaluated(graph, end, source, _LONGEST)
            if value is None or value.shape != _PROBE.shape:
                continue
            if any(torch.allclose(value, target, atol=1e-4) for target in targets):
                return end, source
    return None


def _is_seed(graph: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_function":
        return node.target in _SEEDS
    if node.op == "call_method":
        return node.target in _SEED_METHODS
    return isinstance(layer_of(graph, node), _SEED_LAYERS)


def _sources(seed: fx.Node) -> Iterator[fx.Node]:
    """Yield what the seed may be a function of: its input, and what lies before that."""
    waiting, depth = [seed], 0
    while waiting and depth < _LONGEST:
        waiting = [part for node in waiting for part in node.all_input_nodes]
        yield from dict.fromkeys(waiting)
        depth += 1


def _ends(seed: fx.Node) -> Iterator[fx.Node]:
    """Yield the seed and what lies behind it, the farthest first: the whole of an activation, not a part."""
    layers, depth = [[seed]], 0
    while layers[-1] and depth < _LONGEST:
        layers.append(list(dict.fromkeys(user for node in layers[-1] for user in node.users)))
        depth += 1
    for layer in reversed(layers):
        yield from layer


def _evaluated(graph: fx.GraphModule, node: object, source: fx.Node, depth: int) -> Any:
    """Return what a node gives when `source` is the probe; None where it is not elementwise in it."""
    if node is source:
        return _PROBE
    if not isinstance(node, fx.Node):
        return node if isinstance(node, int | float) else None
    if node.op == "get_attr":
        return _scalar(graph, str(node.target))
    if depth == 0 or not _is_elementwise(graph, node):
        return None
    arguments = [_evaluated(graph, argument, source, depth - 1) for argument in node.args]
    return None if any(argument is None for argument in arguments) else _called(graph, node, arguments)


def _called(graph: fx.GraphModule, node: fx.Node, arguments: list[Any]) -> Any:
    """Return what an elementwise node makes of its arguments."""
    options = {name: value for name, value in node.kwargs.items() if name != "inplace"}
    layer = layer_of(graph, node)
    if layer is not None:
        return layer(*arguments)
    if node.op == "call_method":
        return getattr(torch.as_tensor(arguments[0]), str(node.target))(*arguments[1:], **options)
    assert callable(node.target), "a call_function node calls a function"
    return node.target(*arguments, **options)


def _is_elementwise(graph: fx.GraphModule, node: fx.Node) -> bool:
    if _is_seed(graph, node):
        return True
    if node.op == "call_function":
        return node.target in _ARITHMETIC
    return node.op == "call_method" and node.target in _ARITHMETIC_METHODS


def _scalar(graph: fx.GraphModule, path: str) -> Tensor | None:
    owner, _, name = path.rpartition(".")
    value = getattr(graph.get_submodule(owner), name, None)
    if not isinstance(value, Tensor) or value.numel() != 1:
        return None
    return value.detach().reshape(())
