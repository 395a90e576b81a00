"""Channels that can only go together, found once for a module, and cut out of it in place.

A residual sum, a concatenation, a depthwise filter, a normalisation tie the channels of several layers
together. Which, Torch-Pruning's dependency graph finds (Fang et al. 2023, "DepGraph: Towards Any Structural
Pruning"). Building it traces the module, so it is built once and used for every trial and for the cut.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from flyweight.compressor.torch_model import outputs_of

PRUNING: Any = torch_pruning
"""The library's annotations are incomplete, and some are wrong."""

Importance = Callable[[object], Tensor]
"""A group of coupled layers -> a score for each channel, shape (channels,); the highest are kept."""

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.Linear)
"""What a cut starts from; normalisation, depthwise filters and readers of the channels follow."""


@dataclass(frozen=True, slots=True)
class Member:
    """A layer that gives or reads coupled channels.

    Attributes:
        layer: by name.
        output: whether they are its own channels, or those it reads. Depthwise filters and normalisation,
            which read and give the same ones, count as giving.
        indices: which of its channels, flattened maps having several for one of the root's.
        roots: for each of them the root's channel it goes with.
    """

    layer: str
    output: bool
    indices: tuple[int, ...]
    roots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Coupled:
    """Channels of several layers that go together.

    Attributes:
        root: the layer that channels are counted in, by name.
        width: its channels.
        blocks: groups of a grouped convolution: a channel goes from each of them, so `width` divided by this
            is what can be chosen among.
        members: whose channels they are.
        group: the library's, with all channels.
    """

    root: str
    width: int
    blocks: int
    members: tuple[Member, ...]
    group: Any = field(repr=False, compare=False)


class Couplings:
    """The coupled channels of one module, which `cut` changes in place; owned by whoever made it."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor]) -> None:
        """Trace the module; every parameter must require a gradient. May raise whatever tracing raises."""
        self.module, self._example = module, tuple(example)
        self._graph = PRUNING.DependencyGraph().build_dependency(module, example_inputs=self._example)
        self._names = {layer: name for name, layer in module.named_modules()}
        self.fixed = [
            layer
            for layer in self._graph.module2node
            if isinstance(layer, LAYERS) and _reaches_end(self._graph, layer)
        ]
        """The layers whose channels are the module's outputs, which must keep their number."""
        self.groups = tuple(self._find())

    def _find(self) -> Iterator[Coupled]:
        for group in self._graph.get_all_groups(ignored_layers=self.fixed, root_module_types=list(LAYERS)):
            root = group[0].dep.target.module
            width, blocks = width_of(root), max(_blocks(dep.target.module) for dep, _ in group)
            if width % blocks == 0:
                yield Coupled(self._names[root], width, blocks, tuple(self._members(group)), group)

    def _members(self, group: Any) -> Iterator[Member]:
        for item in group:
            (dep, indices), layer = item, item.dep.target.module
            if layer in self._names:
                output = self._graph.is_out_channel_pruning_fn(dep.handler)
                yield Member(self._names[layer], output, tuple(indices), tuple(item.root_idxs))

    def scores(self, coupled: Coupled, importance: Importance) -> Tensor:
        """Return what each choice among the channels is worth, shape (width / blocks,)."""
        found = importance(coupled.group)
        return found.view(coupled.blocks, -1).mean(dim=0)

    def cut(self, coupled: Coupled, choices: Sequence[int]) -> None:
        """Remove channels from all layers of a group, in place; `choices` index what `scores` returned."""
        if not choices:
            return
        step = coupled.width // coupled.blocks
        indices = [block * step + choice for block in range(coupled.blocks) for choice in choices]
        root = self.module.get_submodule(coupled.root)
        rule = self._graph.get_pruner_of_module(root).prune_out_channels
        group = self._graph.get_pruning_group(root, rule, indices)
        if self._graph.check_pruning_group(group):
            group.prune()

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Undo on leaving whatever was cut inside."""
        graph = self._graph
        # A cut replaces parameters and numbers, and edits lists: copying dictionaries and lists suffices.
        layers = list(dict.fromkeys([*self.module.modules(), *_modules(graph.module2node)]))
        before = [{name: _shallow(value) for name, value in vars(layer).items()} for layer in layers]
        nodes, names = dict(graph.module2node), dict(graph._param_to_name)
        try:
            yield
        finally:
            for layer, values in zip(layers, before, strict=True):
                vars(layer).clear()
                vars(layer).update(values)
            graph.module2node, graph._param_to_name = nodes, names
            for layer, node in nodes.items():
                node.module = layer

    def answers(self) -> list[Tensor]:
        """Return the module's outputs for the example; raises what forward() raises."""
        with torch.no_grad():
            return list(outputs_of(self.module(*self._example)))


def width_of(layer: nn.Module) -> int:
    """Return the number of a layer's output channels or features."""
    width = getattr(layer, "out_channels", None) or layer.out_features
    assert isinstance(width, int), "convolutions and linear layers know their width"
    return width


def _blocks(layer: Any) -> int:
    groups = getattr(layer, "groups", 1) if isinstance(layer, LAYERS) else getattr(layer, "num_groups", 1)
    return 1 if groups == getattr(layer, "out_channels", None) else int(groups)


def _reaches_end(graph: Any, layer: nn.Module) -> bool:
    """Return whether a layer's channels arrive at the end of the graph without another layer mixing them."""
    waiting, seen = [graph.module2node[layer]], set()
    while waiting:
        node = waiting.pop()
        if not node.outputs:
            return True
        for reader in node.outputs:
            mixes = isinstance(reader.module, LAYERS) and getattr(reader.module, "groups", 1) == 1
            if id(reader) not in seen and not mixes:
                seen.add(id(reader))
                waiting.append(reader)
    return False


def _modules(nodes: Any) -> list[nn.Module]:
    return [layer for layer in nodes if isinstance(layer, nn.Module)]


def _shallow(value: object) -> object:
    return value.copy() if isinstance(value, dict | list) else value
