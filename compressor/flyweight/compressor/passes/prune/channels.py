"""Cutting channels out of a torch module so that its layers are really smaller, coupled layers together."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.passes.prune.coupling import (
    LAYERS,
    PRUNING,
    Coupled,
    Couplings,
    Importance,
    width_of,
)
from flyweight.compressor.passes.prune.flattening import free_flattening
from flyweight.compressor.passes.prune.soundness import unsound

Plan = Mapping[str, int]
"""The root layer of coupled channels -> how many of its channels stay; who is not in it stays whole."""


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
    """A narrower copy of a module, and how many channels each cut layer had and has, by the layer's name.

    `refused` holds the layers that could not be cut, each with the reason.
    """

    module: nn.Module
    channels: Mapping[str, tuple[int, int]]
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A copy of a module that can be cut, with what can be cut in it.

    Attributes:
        couplings: of the copy; trials and the cut happen in it.
        groups: the coupled channels whose cut means what it should.
        refused: why the others' does not, by root layer.
    """

    couplings: Couplings
    groups: tuple[Coupled, ...]
    refused: Mapping[str, str]


def kept_channels(channels: int, settings: CutSettings) -> int:
    """Return how many of a layer's channels stay: the nearest allowed multiple, never none or more than all.

    Layers of fewer than 16 channels have no multiple of 8 below them and stay whole.
    """
    if settings.keep >= 1.0:
        return channels
    step = settings.round_to if channels >= 2 * settings.round_to else min(8, settings.round_to)
    wanted = round(channels * settings.keep / step) * step
    return min(max(wanted, step), channels)


def prepare(module: nn.Module, example: Sequence[Tensor]) -> Prepared:
    """Copy a module, trace it, and find what can be cut in it.

    Args:
        module: in evaluation mode; it may carry gradients, which the copy keeps for importances to use.
        example: one batch of each input of forward(), in order.

    Raises:
        PassError: the module has no layers to cut, cannot be traced, or no layer of it can be cut.
    """
    if not any(isinstance(layer, LAYERS) for layer in module.modules()):
        raise PassError("The module has no convolution or linear layer whose channels could be cut.")
    narrow = _copy_with_gradients(module)

    def traced() -> Couplings:
        free_flattening(narrow, example)
        return Couplings(narrow, example)

    with quiet():
        couplings = run_foreign(
            traced, lambda reason: PassError(f"The module could not be traced for pruning ({reason}).")
        )
        # Layers too narrow to lose channels are no fault of the module's; nobody needs to hear of them.
        wide = [group for group in couplings.groups if group.width // group.blocks > 2]
        faults = {group.root: unsound(couplings, group) for group in wide}
    sound = tuple(group for group in wide if faults[group.root] is None)
    refused = {root: fault for root, fault in faults.items() if fault is not None}
    if refused and not sound:
        raise next(iter(refused.values()))
    return Prepared(couplings, sound, {root: str(fault) for root, fault in refused.items()})


def apply_plan(prepared: Prepared, plan: Plan, importance: Importance) -> CutModule:
    """Cut the least important channels of a prepared module, in place; its outputs keep their shapes.

    Raises:
        PassError: what is left does not run, or its outputs have other shapes.
    """
    couplings = prepared.couplings
    before = _widths(couplings.module)
    with quiet():
        expected = [output.shape for output in couplings.answers()]
        cut(prepared, plan, importance)
        found = run_foreign(couplings.answers, _broken)
    if [output.shape for output in found] != expected:
        raise _broken("the outputs have other shapes")
    for parameter in couplings.module.parameters():
        parameter.grad = None
    after = _widths(couplings.module)
    changed = {name: (before[name], width) for name, width in after.items() if width != before[name]}
    return CutModule(couplings.module, changed, prepared.refused)


def cut(prepared: Prepared, plan: Plan, importance: Importance) -> None:
    """Cut by a plan without checking the outcome, in place; for trials."""
    # All are ranked first: a cut of one group changes the weights by which the next is ranked.
    ranked = [
        (group, least_important(prepared.couplings, group, plan[group.root], importance))
        for group in prepared.groups
        if plan.get(group.root, group.width) < group.width
    ]
    for group, channels in ranked:
        prepared.couplings.cut(group, channels)


def least_important(couplings: Couplings, group: Coupled, kept: int, importance: Importance) -> list[int]:
    """Return the choices among a group's channels that go, so that `kept` of its root's stay."""
    gone = (group.width - kept) // group.blocks
    return torch.argsort(couplings.scores(group, importance), stable=True)[:gone].tolist()


def cut_channels(
    module: nn.Module, example: Sequence[Tensor], settings: CutSettings, importance: Importance
) -> CutModule:
    """Return a copy of `module` without the least important channels; its outputs keep their shapes.

    Layers whose cut breaks the module (attention writes its number of heads into reshapes) are left whole.

    Args:
        module: in evaluation mode; it may carry gradients, which importances may use.
        example: one batch of each input of forward(), in order.
        settings: how much of every layer stays.
        importance: decides which channels go.

    Raises:
        PassError: the module cannot be traced, or no layer of it can be cut.
    """
    prepared = prepare(module, example)
    return apply_plan(prepared, uniform_plan(prepared.groups, settings), importance)


def uniform_plan(groups: Sequence[Coupled], settings: CutSettings) -> dict[str, int]:
    """Return the plan that keeps the same fraction of all coupled channels."""
    return {group.root: kept_of(group, settings) for group in groups}


def kept_of(group: Coupled, settings: CutSettings) -> int:
    """Return how many of a group's channels stay; each block of a grouped convolution keeps as many."""
    if group.blocks == 1:
        return kept_channels(group.width, settings)
    whole = kept_channels(group.width, settings)
    return whole if whole % group.blocks == 0 else group.width


def by_magnitude() -> Importance:
    """Score a channel by the L2 norm of its weights in all coupled layers (Fang et al. 2023, section 3.3).

    Divided by the layer's mean, so that scores of different layers can be compared.
    """
    scorer: Importance = PRUNING.importance.GroupMagnitudeImportance(p=2)
    return scorer


def by_gradient(*, comparable: bool = False) -> Importance:
    """Score a channel by |weight x gradient|, the loss's change to first order (Molchanov et al. 2019).

    The module must carry gradients. Scores are divided by the layer's mean, or, if they must be `comparable`
    between layers, are the loss's change itself.
    """
    settings = {"normalizer": None, "group_reduction": "sum"} if comparable else {}
    scorer: Importance = PRUNING.importance.GroupTaylorImportance(**settings)
    return scorer


def _broken(reason: str) -> PassError:
    return PassError(
        f"The module does not work any more after its channels were cut ({reason}); its forward() "
        "probably has a number of channels written into it."
    )


def _copy_with_gradients(module: nn.Module) -> nn.Module:
    """Return a copy that can be traced through autograd; frozen parameters are thawed, gradients kept."""
    narrow = copy.deepcopy(module)
    for parameter, original in zip(narrow.parameters(), module.parameters(), strict=True):
        if parameter.is_floating_point():
            parameter.requires_grad_(True)  # noqa: FBT003 - torch's own verb
        parameter.grad = None if original.grad is None else original.grad.clone()
    return narrow


def _widths(module: nn.Module) -> dict[str, int]:
    return {name: width_of(layer) for name, layer in module.named_modules() if isinstance(layer, LAYERS)}
