"""Cutting channels out of a torch module so that its layers are really smaller, coupled layers together.

Which layers must be cut together (through residual sums, concatenations, depthwise filters, normalisation) is
found by Torch-Pruning's dependency graph (Fang et al. 2023, "DepGraph: Towards Any Structural Pruning").
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.torch_model import outputs_of

_PRUNING: Any = torch_pruning
"""The library's annotations are incomplete, and some are wrong."""

Importance = Callable[[object], Tensor]
"""A group of coupled layers -> a score for each channel, shape (channels,); the highest are kept."""

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear)
"""What a cut starts from; normalisation, depthwise filters and readers of the channels follow."""


@dataclass(frozen=True, slots=True)
class CutSettings:
    """How much of every layer stays.

    Attributes:
        keep: fraction of the channels to keep, above 0, at most 1.
        round_to: what is kept is a multiple of this, or of 8 in layers of fewer than twice as many channels.
            16 float32 channels fill a 512-bit register: 50 % of the channels made a network 3.8 times as
            fast, 17 of 32 only 2.5 times.
    """

    keep: float
    round_to: int = 16


@dataclass(frozen=True, slots=True)
class CutModule:
    """A narrower copy of a module, and how many channels each cut layer had and has, by the layer's name."""

    module: nn.Module
    channels: Mapping[str, tuple[int, int]]


def kept_channels(channels: int, settings: CutSettings) -> int:
    """Return how many of a layer's channels stay: the nearest allowed multiple, never none or more than all.

    Layers of fewer than 16 channels have no multiple of 8 below them and stay whole.
    """
    if settings.keep >= 1.0:
        return channels
    step = settings.round_to if channels >= 2 * settings.round_to else min(8, settings.round_to)
    wanted = round(channels * settings.keep / step) * step
    return min(max(wanted, step), channels)


def cut_channels(
    module: nn.Module, example: Sequence[Tensor], settings: CutSettings, importance: Importance
) -> CutModule:
    """Return a copy of `module` without the least important channels; its outputs keep their shapes.

    Where a cut of all layers breaks the module (attention writes its number of heads into reshapes), layers
    are tried one by one, and those that break it are left whole.

    Args:
        module: in evaluation mode; it may carry gradients, which importances may use.
        example: one batch of each input of forward(), in order.
        settings: how much stays.
        importance: decides which channels go.

    Raises:
        PassError: the module cannot be traced, or no layer of it can be cut.
    """
    layers = [name for name, layer in module.named_modules() if isinstance(layer, LAYERS)]

    if not layers:
        raise PassError("The module has no convolution or linear layer whose channels could be cut.")

    def cut(names: Sequence[str]) -> CutModule:
        return _cut(module, example, _ratios(module, settings, names), importance)

    def can_be_cut(name: str) -> bool:
        try:
            return bool(cut([name]).channels)
        except PassError:
            return False

    try:
        return cut(layers)
    except PassError:
        possible = [name for name in layers if can_be_cut(name)]
        if not possible:
            raise
        return cut(possible)


def _cut(
    module: nn.Module, example: Sequence[Tensor], ratios: Mapping[str, float], importance: Importance
) -> CutModule:
    expected = _shapes(module, example)
    narrow = _copy_with_gradients(module)
    with quiet():
        channels = run_foreign(
            lambda: _cut_in_place(narrow, example, ratios, importance),
            lambda reason: PassError(f"The module's channels cannot be traced for pruning ({reason})."),
        )
        found = run_foreign(
            lambda: _shapes(narrow, example),
            lambda reason: PassError(
                f"The module does not work any more after its channels were cut ({reason}); its forward() "
                "probably has a number of channels written into it."
            ),
        )
    if found != expected:
        raise PassError(
            f"Cutting channels changed the outputs from shape {expected} to {found}; "
            "the module cannot be pruned."
        )
    for parameter in narrow.parameters():
        parameter.grad = None
    return CutModule(narrow, channels)


def by_magnitude() -> Importance:
    """Score a channel by the L2 norm of its weights in all coupled layers (Fang et al. 2023, section 3.3)."""
    scorer: Importance = _PRUNING.importance.GroupMagnitudeImportance(p=2)
    return scorer


def by_gradient() -> Importance:
    """Score a channel by |weight x gradient|, the loss's change to first order (Molchanov et al. 2019).

    The module must carry gradients.
    """
    scorer: Importance = _PRUNING.importance.GroupTaylorImportance()
    return scorer


def _cut_in_place(
    module: nn.Module, example: Sequence[Tensor], ratios: Mapping[str, float], importance: Importance
) -> dict[str, tuple[int, int]]:
    before, layers = _widths(module), dict(module.named_modules())
    pruner = _PRUNING.BasePruner(
        module,
        tuple(example),
        importance=importance,
        pruning_ratio=0.0,
        pruning_ratio_dict={layers[name]: ratio for name, ratio in ratios.items()},
        ignored_layers=output_layers(module, example),
        root_module_types=list(LAYERS),
        # The defaults are dictionaries shared between all pruners of the process.
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()
    after = _widths(module)
    return {name: (before[name], width) for name, width in after.items() if width != before[name]}


def _ratios(module: nn.Module, settings: CutSettings, names: Sequence[str]) -> dict[str, float]:
    """Return the fraction of channels to remove, for each of the named layers that loses any."""
    ratios: dict[str, float] = {}
    for name, width in _widths(module).items():
        kept = kept_channels(width, settings)
        if name in names and kept < width:
            # The library keeps int(width * (1 - ratio)); half a channel more makes that exact.
            ratios[name] = 1.0 - (kept + 0.5) / width
    return ratios


def output_layers(module: nn.Module, example: Sequence[Tensor]) -> list[nn.Module]:
    """Return the layers whose channels are the module's outputs, which must keep their number."""
    graph = _PRUNING.DependencyGraph().build_dependency(module, example_inputs=tuple(example))
    return [layer for layer in graph.module2node if isinstance(layer, LAYERS) and _reaches_end(graph, layer)]


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


def _copy_with_gradients(module: nn.Module) -> nn.Module:
    """Return a copy that can be traced through autograd; frozen parameters are thawed, gradients kept."""
    narrow = copy.deepcopy(module)
    for parameter, original in zip(narrow.parameters(), module.parameters(), strict=True):
        if parameter.is_floating_point():
            parameter.requires_grad_(True)  # noqa: FBT003 - torch's own verb
        parameter.grad = None if original.grad is None else original.grad.clone()
    return narrow


def _shapes(module: nn.Module, example: Sequence[Tensor]) -> list[tuple[int, ...]]:
    with torch.no_grad():
        return [tuple(output.shape) for output in outputs_of(module(*example))]


def _widths(module: nn.Module) -> dict[str, int]:
    return {name: _width(layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)}


def _width(layer: nn.Module) -> int:
    width = getattr(layer, "out_channels", None) or layer.out_features
    assert isinstance(width, int), "convolutions and linear layers know their width"
    return width
