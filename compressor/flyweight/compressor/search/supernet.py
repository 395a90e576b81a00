"""One network that holds many: narrower, shallower, with smaller kernels, all sharing their weights.

H. Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment", ICLR 2020; J. Yu
et al., "Slimmable Neural Networks", ICLR 2019. A sub-network is a choice of three things:

- width: of channels that go together, the k most important ones, so that narrower ones lie inside wider ones;
- kernel: of a k x k filter the central part;
- depth: which residual blocks are skipped.

While weights are shared a sub-network is a mask of zeros and ones on the weights: a channel that its makers
do not make and its readers do not read is not there, whatever lies between, and a filter whose border is zero
is a smaller filter. `extract` cuts the same network out for good.
"""

import copy
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.passes.prune.channels import (
    CutSettings,
    Prepared,
    apply_plan,
    by_magnitude,
    kept_of,
    prepare,
)
from flyweight.compressor.torch_model import outputs_of

if TYPE_CHECKING:
    from flyweight.compressor.passes.prune.coupling import Coupled

WIDTHS: Final = (1.0, 0.75, 0.5, 0.25)
"""Fractions of the channels that a sub-network may have."""

_SMALLEST_KERNEL: Final = 3
# What masks may pretend: layers that treat every channel on its own, or mix them by weights.
_MASKABLE: Final = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.Linear,
    nn.modules.batchnorm._BatchNorm,
    nn.PReLU,
)
# Rounding of sums in another order.
_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Dimension:
    """One thing in which sub-networks differ.

    Attributes:
        kind: width, kernel or depth.
        name: of the root layer of coupled channels, of the convolution, or of the block.
        values: channels or kernel sizes, the largest first; for a block 1 (runs) and 0 (skipped).
    """

    kind: str
    name: str
    values: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SubNetwork:
    """A choice for every dimension: the place of its value; 0 everywhere is the whole network."""

    places: Mapping[str, int] = field(default_factory=dict)

    def value(self, dimension: Dimension) -> int:
        """Return the choice for a dimension."""
        return dimension.values[self.places.get(key_of(dimension), 0)]


def key_of(dimension: Dimension) -> str:
    """Return the name of a dimension among all."""
    return f"{dimension.kind}:{dimension.name}"


class Supernet:
    """A copy of a module whose weights all of its sub-networks share; used from one thread."""

    def __init__(self, module: nn.Module, example: Sequence[Tensor], round_to: int = 8) -> None:
        """Find what may vary.

        Args:
            module: any; it is copied.
            example: one batch of each input of forward(), in order.
            round_to: widths are multiples of this; see CutSettings.

        Raises:
            PassError: the module cannot be traced, or nothing in it may vary.
        """
        self.module = copy.deepcopy(module).eval()
        for parameter in self.module.parameters():
            if parameter.is_floating_point():
                parameter.requires_grad_(True)  # noqa: FBT003 - torch's own verb
        self._example = tuple(example)
        self._prepared = prepare(self.module, example)
        self._groups = {group.root: group for group in self._prepared.groups if self._is_maskable(group)}
        self._order = {root: self._ranked(group) for root, group in self._groups.items()}
        self._positions = self._count_positions()
        self.dimensions = (*self._widths(round_to), *self._kernels(), *self._blocks())
        if not self.dimensions:
            raise PassError("No layer of the module can be narrower, and no block of it can be skipped.")

    def smallest(self) -> SubNetwork:
        """Return the sub-network that is smallest in every dimension."""
        return SubNetwork({key_of(d): len(d.values) - 1 for d in self.dimensions})

    def draw(self, source: random.Random) -> SubNetwork:
        """Return a sub-network that is random in every dimension."""
        return SubNetwork({key_of(d): source.randrange(len(d.values)) for d in self.dimensions})

    def run(self, sub: SubNetwork, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the outputs of a sub-network, through which gradients reach the shared weights."""
        masks = self.masks(sub)
        shared = {
            name: weight * masks[name] if name in masks else weight
            for name, weight in self.module.named_parameters()
        }
        with _skipping(self.module, self._skipped(sub)):
            return outputs_of(torch.func.functional_call(self.module, shared, tuple(inputs)))

    def masks(self, sub: SubNetwork) -> dict[str, Tensor]:
        """Return ones and zeros of the shape of each parameter that is not whole, by its name."""
        masks: dict[str, Tensor] = {}
        for dimension in self.dimensions:
            if dimension.kind == "width" and sub.value(dimension) < dimension.values[0]:
                self._mask_channels(self._groups[dimension.name], sub.value(dimension), masks)
            elif dimension.kind == "kernel" and sub.value(dimension) < dimension.values[0]:
                border = (dimension.values[0] - sub.value(dimension)) // 2
                name = f"{dimension.name}.weight"
                mask = masks.setdefault(name, torch.ones_like(self.module.get_parameter(name)))
                for axis in (-1, -2):
                    mask.narrow(axis, 0, border).zero_()
                    mask.narrow(axis, mask.shape[axis] - border, border).zero_()
        return masks

    def costs(self, sub: SubNetwork) -> tuple[int, int]:
        """Return multiply-adds for one row, and parameters, of a sub-network."""
        masks, skipped = self.masks(sub), self._skipped(sub)
        macs = parameters = 0
        for name, weight in self.module.named_parameters():
            layer = name.rpartition(".")[0]
            if any(layer == block or layer.startswith(f"{block}.") for block in skipped):
                continue
            held = int(masks[name].count_nonzero()) if name in masks else weight.numel()
            parameters += held
            if name.endswith("weight"):
                macs += held * self._positions.get(layer, 0)
        return macs, parameters

    def masked(self, sub: SubNetwork) -> nn.Module:
        """Return a copy that answers as the sub-network does, with the whole network's shapes."""
        module = copy.deepcopy(self.module).eval()
        masks = self.masks(sub)
        with torch.no_grad():
            for name, weight in module.named_parameters():
                if name in masks:
                    weight.mul_(masks[name])
        _remove(module, self._skipped(sub))
        return module

    def extract(self, sub: SubNetwork) -> nn.Module:
        """Return the sub-network as a module of its own, its layers really smaller.

        Its normalisation has the whole network's statistics: estimate them anew.

        Raises:
            PassError: what was cut out does not answer as the masks did.
        """
        module = copy.deepcopy(self.module).eval()
        prepared = prepare(module, self._example)
        plan = {d.name: sub.value(d) for d in self.dimensions if d.kind == "width"}
        module = apply_plan(prepared, plan, self._fixed_importance(prepared)).module
        for dimension in self.dimensions:
            if dimension.kind == "kernel":
                _crop(module.get_submodule(dimension.name), sub.value(dimension))
        _remove(module, self._skipped(sub))
        with torch.no_grad():
            wanted = outputs_of(self.masked(sub)(*self._example))
            found = outputs_of(module(*self._example))
        for ours, theirs in zip(found, wanted, strict=True):
            scale = max(1.0, float(theirs.abs().max()))
            if float((ours - theirs).abs().max()) > _TOLERANCE * scale:
                raise PassError(
                    "A sub-network answers otherwise once it is cut out: the module mixes channels in a way "
                    "that cannot be shared; prune it instead."
                )
        return module

    def _skipped(self, sub: SubNetwork) -> list[str]:
        return [d.name for d in self.dimensions if d.kind == "depth" and sub.value(d) == 0]

    def _is_maskable(self, group: "Coupled") -> bool:
        layers = [self.module.get_submodule(member.layer) for member in group.members]
        return group.blocks == 1 and all(isinstance(layer, _MASKABLE) for layer in layers)

    def _ranked(self, group: "Coupled") -> list[int]:
        """Return the channels of a group's root, the most important first."""
        scores = self._prepared.couplings.scores(group, by_magnitude())
        return [int(place) for place in torch.argsort(scores.detach(), descending=True, stable=True)]

    def _fixed_importance(self, prepared: Prepared) -> Any:
        """Return an importance that ranks the channels of a copy as they were ranked once for all."""
        names = {layer: name for name, layer in prepared.couplings.module.named_modules()}

        def score(group: Any) -> Tensor:
            order = self._order[names[group[0].dep.target.module]]
            scores = torch.empty(len(order))
            scores[torch.tensor(order)] = torch.arange(len(order), 0, -1, dtype=torch.float32)
            return scores

        return score

    def _mask_channels(self, group: "Coupled", kept: int, masks: dict[str, Tensor]) -> None:
        gone = set(self._order[group.root][kept:])
        for member in group.members:
            layer = self.module.get_submodule(member.layer)
            lost = [place for place, root in zip(member.indices, member.roots, strict=True) if root in gone]
            names = [name for name, _ in layer.named_parameters(recurse=False)]
            for name in names if member.output else ["weight"]:
                whole = f"{member.layer}.{name}"
                mask = masks.setdefault(whole, torch.ones_like(self.module.get_parameter(whole)))
                mask.index_fill_(0 if member.output else 1, torch.tensor(lost, dtype=torch.long), 0.0)

    def _widths(self, round_to: int) -> Iterator[Dimension]:
        for root, group in self._groups.items():
            kept = {kept_of(group, CutSettings(width, round_to)) for width in WIDTHS} | {group.width}
            if len(kept) > 1:
                yield Dimension("width", root, tuple(sorted(kept, reverse=True)))

    def _kernels(self) -> Iterator[Dimension]:
        for name, layer in self.module.named_modules():
            if isinstance(layer, nn.Conv2d) and _is_centred(layer):
                size = layer.kernel_size[0]
                yield Dimension("kernel", name, tuple(range(size, _SMALLEST_KERNEL - 1, -2)))

    def _blocks(self) -> Iterator[Dimension]:
        """Find residual blocks: with all of its weights zero, a block passes its input on.

        Of nested ones the outermost counts.
        """
        found: list[str] = []
        for name, arguments, output in _watched(self.module, self._example):
            block = self.module.get_submodule(name)
            inside = any(name.startswith(f"{outer}.") for outer in found)
            if not inside and any(block.children()) and _passes_on(block, arguments, output):
                found.append(name)
                yield Dimension("depth", name, (1, 0))

    def _count_positions(self) -> dict[str, int]:
        """Return how many times each weight of a layer is used for one row, by the layer's name."""
        return {
            name: output[0, 0].numel()
            if output.ndim > 2 and isinstance(layer, nn.Conv2d | nn.Conv1d | nn.Conv3d)
            else output[0].numel() // output.shape[-1]
            for name, _, output in _watched(self.module, self._example)
            if isinstance(
                layer := self.module.get_submodule(name), nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d
            )
        }


def _watched(module: nn.Module, example: Sequence[Tensor]) -> list[tuple[str, tuple[Tensor, ...], Tensor]]:
    """Return name, inputs and output of every submodule that takes and gives tensors, the outermost first."""
    seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}
    handles = []
    for name, layer in module.named_modules():

        def note(_layer: nn.Module, inputs: Any, output: Any, name: str = name) -> None:
            if isinstance(output, Tensor) and all(isinstance(value, Tensor) for value in inputs):
                seen[name] = (tuple(inputs), output)

        if name:
            handles.append(layer.register_forward_hook(note))
    try:
        with torch.no_grad():
            module(*example)
    finally:
        for handle in handles:
            handle.remove()
    return [(name, *seen[name]) for name, _ in module.named_modules() if name in seen]


def _passes_on(block: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> bool:
    if len(inputs) != 1 or inputs[0].shape != output.shape or not any(True for _ in block.parameters()):
        return False
    empty = copy.deepcopy(block)
    with torch.no_grad():
        for parameter in empty.parameters():
            parameter.zero_()
        return torch.equal(outputs_of(empty(inputs[0]))[0], inputs[0])


def _is_centred(layer: nn.Conv2d) -> bool:
    high, wide = layer.kernel_size
    return (
        high == wide
        and high > _SMALLEST_KERNEL
        and high % 2 == 1
        and layer.padding == (high // 2, high // 2)
        and layer.dilation == (1, 1)
    )


def _crop(layer: nn.Module, size: int) -> None:
    """Keep the central part of a filter, in place."""
    assert isinstance(layer, nn.Conv2d), "only these have a kernel to crop"
    border = (layer.kernel_size[0] - size) // 2
    if border:
        inner = layer.weight.detach()[:, :, border : border + size, border : border + size]
        layer.weight = nn.Parameter(inner.clone())
        layer.kernel_size, layer.padding = (size, size), (size // 2, size // 2)
        layer._reversed_padding_repeated_twice = [size // 2] * 4


def _remove(module: nn.Module, blocks: Sequence[str]) -> None:
    for name in blocks:
        home, _, last = name.rpartition(".")
        setattr(module.get_submodule(home), last, nn.Identity())


@contextmanager
def _skipping(module: nn.Module, blocks: Sequence[str]) -> Iterator[None]:
    """Let blocks return their input while the context lasts."""
    handles = [
        module.get_submodule(name).register_forward_hook(lambda _block, inputs, _output: inputs[0])
        for name in blocks
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
