"""What can be left out of a module whole: parts whose output has the shape of their input."""

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

_SUMS: Final = frozenset({operator.add, operator.iadd, torch.add})


class Bypass(nn.Module):
    """Returns its first argument, whatever else it is called with, such as a mask."""

    def forward(self, given: Tensor, *_: object, **__: object) -> Tensor:
        """Return what was given."""
        return given


@dataclass(frozen=True, slots=True)
class ModuleSkip:
    """A submodule that can be bypassed."""

    name: str

    def drop(self, module: nn.Module) -> None:
        """Put a bypass in its place, in place."""
        owner, _, attribute = self.name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, Bypass())


@dataclass(frozen=True, slots=True)
class SumSkip:
    """A branch of a residual sum in a graph: x + f(x), of which x alone can stay.

    Attributes:
        name: of the last layer of the branch.
        total: the node that adds, by name.
        shortcut: the node of x, by name.
    """

    name: str
    total: str
    shortcut: str

    def drop(self, module: nn.Module) -> None:
        """Let whoever reads the sum read x, in place."""
        assert isinstance(module, fx.GraphModule), "found in one"
        nodes = {node.name: node for node in module.graph.nodes}
        total = nodes[self.total]
        # Another branch may have been dropped before: then x is what that one's x was.
        shortcut = nodes.get(self.shortcut)
        if shortcut is None:
            return
        total.replace_all_uses_with(shortcut)
        module.graph.eliminate_dead_code()
        module.delete_all_unused_submodules()
        module.recompile()


Skip = ModuleSkip | SumSkip


def find_skips(module: nn.Module, inputs: Sequence[Tensor]) -> list[Skip]:
    """Return what could be left out, the outermost first; in graphs the branches of residual sums.

    A candidate among submodules has submodules of its own, holds weights but at most half of the module's, is
    called once with one tensor, and answers in the shape it was given. Whether the module is any good
    without it must be measured.
    """
    if isinstance(module, fx.GraphModule):
        return list(_sums(module))
    return [ModuleSkip(name) for name in _same_shape(module, inputs)]


def _same_shape(module: nn.Module, inputs: Sequence[Tensor]) -> list[str]:
    """Return the submodules with weights, called once, whose output is shaped like their only input."""
    calls: dict[str, list[bool]] = {}

    def watch(name: str, layer: nn.Module) -> Any:
        def hook(_: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            fits = (
                len(given) == 1
                and isinstance(given[0], Tensor)
                and isinstance(output, Tensor)
                and given[0].shape == output.shape
                and given[0].dtype == output.dtype
            )
            calls.setdefault(name, []).append(fits)

        return layer.register_forward_hook(hook)

    total = sum(parameter.numel() for parameter in module.parameters())
    candidates = {
        name: layer
        for name, layer in module.named_modules()
        # A single layer is no block, and what holds most of the weights is the network.
        if any(True for _ in layer.children()) and 0 < _weights(layer) <= total / 2
    }
    handles = [watch(name, layer) for name, layer in candidates.items()]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in candidates if calls.get(name) == [True]]


def _weights(layer: nn.Module) -> int:
    return sum(parameter.numel() for parameter in layer.parameters())


def _sums(module: fx.GraphModule) -> Iterator[SumSkip]:
    for node in module.graph.nodes:
        adds = node.target in _SUMS if node.op == "call_function" else node.target in {"add", "add_"}
        terms = [term for term in node.args[:2] if isinstance(term, fx.Node)]
        if not adds or len(terms) != 2:
            continue
        for shortcut, branch in (terms, reversed(terms)):
            layers = _between(branch, shortcut)
            if layers:
                yield SumSkip(layers[0], node.name, shortcut.name)
                break


def _between(branch: fx.Node, shortcut: fx.Node) -> list[str]:
    """Return a branch's layers, the last first, if all of it comes from the shortcut; else none."""
    waiting, seen, layers, reached = [branch], set[fx.Node](), list[str](), False
    while waiting:
        current = waiting.pop(0)
        if current is shortcut:
            reached = True
            continue
        if current in seen:
            continue
        seen.add(current)
        if current.op == "placeholder":
            # An attention mask, say, may come from outside; x itself must not be passed by.
            continue
        if current.op == "call_module":
            layers.append(str(current.target))
        waiting.extend(current.all_input_nodes)
    before = _behind(shortcut)
    passes_by = any(node in before and node.op == "call_module" for node in seen)
    return layers if reached and not passes_by else []


def _behind(node: fx.Node) -> set[fx.Node]:
    waiting, seen = list(node.all_input_nodes), set[fx.Node]()
    while waiting:
        current = waiting.pop()
        if current not in seen:
            seen.add(current)
            waiting.extend(current.all_input_nodes)
    return seen
