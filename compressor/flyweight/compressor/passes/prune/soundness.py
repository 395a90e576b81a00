"""Whether a cut of coupled channels means what it should: tried on the module itself, and undone.

What is left must run, give outputs of the same shapes, and answer as the whole module does when the readers
of the channels are deaf to them (the weights they read them with are zero). The last tells where forward()
moves channels about in ways the dependency graph does not follow, such as a shuffle written with reshape.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.passes.prune.coupling import LAYERS, Coupled, Couplings, Member

TOLERANCE: Final = 1e-3
"""Of the largest output: far above rounding, far below what a wrong channel does."""

MIXING: Final = (nn.LayerNorm, nn.GroupNorm)
"""They average over the channels, so that a channel of zeros is not the same as none."""


def unsound(couplings: Couplings, coupled: Coupled) -> PassError | None:
    """Return why these channels cannot be cut, or None."""
    gone = list(range(0, coupled.width // coupled.blocks, 2))

    def refused(reason: str) -> PassError:
        return PassError(
            f"The module does not work any more after channels of {coupled.root} were cut ({reason}); its "
            "forward() probably has a number of channels written into it."
        )

    try:
        with quiet():
            expected = run_foreign(lambda: _deaf(couplings, coupled, gone), refused)
            found = run_foreign(lambda: _cut(couplings, coupled, gone), refused)
    except PassError as error:
        return error
    comparable = _comparable(couplings, coupled)
    for before, after in zip(expected, found, strict=True):
        if before.shape != after.shape:
            return refused(f"an output has shape {tuple(after.shape)} instead of {tuple(before.shape)}")
        if comparable and before.is_floating_point() and not _close(before, after):
            return refused("it answers otherwise than when the channels are not listened to")
    return None


def _cut(couplings: Couplings, coupled: Coupled, gone: Sequence[int]) -> list[Tensor]:
    with couplings.trial():
        couplings.cut(coupled, gone)
        return couplings.answers()


def _deaf(couplings: Couplings, coupled: Coupled, gone: Sequence[int]) -> list[Tensor]:
    """Return the whole module's answers when nobody listens to the channels."""
    step = coupled.width // coupled.blocks
    places = [block * step + choice for block in range(coupled.blocks) for choice in gone]
    with couplings.trial():
        for member in coupled.members:
            layer = couplings.module.get_submodule(member.layer)
            if not member.output and isinstance(layer, LAYERS):
                _ignore(layer, _selected(member, places))
        return couplings.answers()


def _selected(member: Member, places: Sequence[int]) -> list[int]:
    """Return a member's channels for places among the root's; flattened maps have several for each."""
    wanted = set(places)
    return [index for index, root in zip(member.indices, member.roots, strict=True) if root in wanted]


def _ignore(layer: nn.Module, channels: Sequence[int]) -> None:
    """Let a layer read nothing from some of its input channels, by a new weight."""
    weight = layer.get_parameter("weight").detach().clone()
    if getattr(layer, "transposed", False):
        weight[list(channels)] = 0.0
    else:
        groups = int(getattr(layer, "groups", 1))
        rows, inputs = weight.shape[0] // groups, weight.shape[1]
        for channel in channels:
            block = channel // inputs
            weight[block * rows : (block + 1) * rows, channel % inputs] = 0.0
    layer.weight = nn.Parameter(weight)


def _comparable(couplings: Couplings, coupled: Coupled) -> bool:
    layers = [(couplings.module.get_submodule(member.layer), member) for member in coupled.members]
    readers = [layer for layer, member in layers if not member.output]
    return not any(isinstance(layer, MIXING) for layer, _ in layers) and all(
        isinstance(layer, LAYERS) for layer in readers
    )


def _close(expected: Tensor, found: Tensor) -> bool:
    scale = max(float(expected.abs().max()), 1e-6) if expected.numel() else 1.0
    difference = float((expected - found).abs().max()) if expected.numel() else 0.0
    return bool(torch.isfinite(found).all()) and difference <= TOLERANCE * scale
