"""How many multiply-adds a module would need if some of its channels were cut, without cutting them."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from flyweight.compressor.passes.prune.coupling import LAYERS, Couplings
from flyweight.compressor.watching import watched


@dataclass(slots=True)
class _Side:
    """The channels of one side of a layer, and how many of them hang on which root."""

    channels: int
    tied: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def left(self, kept: Mapping[str, float]) -> float:
        return self.channels - sum(count * (1.0 - kept.get(root, 1.0)) for root, count in self.tied.items())


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer's multiply-adds are `positions` x inputs x outputs; depthwise filters have one input."""

    positions: float
    inputs: _Side
    outputs: _Side


class Costs:
    """The multiply-adds of a module's convolutions and linear layers for one example, by plan of cuts.

    A layer with a of its A inputs and b of its B outputs needs (a / A)(b / B) of its multiply-adds.
    """

    def __init__(self, couplings: Couplings) -> None:
        """Run the module once and count."""
        self._widths = {group.root: group.width for group in couplings.groups}
        self._layers = {
            name: _layer(couplings.module.get_submodule(name), count)
            for name, count in multiply_adds(couplings).items()
        }
        for group in couplings.groups:
            for member in group.members:
                layer = self._layers.get(member.layer)
                if layer is not None:
                    side = layer.outputs if member.output else layer.inputs
                    side.tied[group.root] += len(member.indices)

    def of(self, plan: Mapping[str, int]) -> float:
        """Return the multiply-adds that are left when each root keeps as many channels as the plan says."""
        kept = {root: count / self._widths[root] for root, count in plan.items()}
        return sum(
            layer.positions * layer.inputs.left(kept) * layer.outputs.left(kept)
            for layer in self._layers.values()
        )


def multiply_adds(couplings: Couplings) -> dict[str, int]:
    """Return the multiply-adds of each layer that the example reaches, by name."""
    counted: dict[str, int] = defaultdict(int)
    layers = {name: layer for name, layer in couplings.module.named_modules() if isinstance(layer, LAYERS)}

    def count(name: str, inputs: tuple[object, ...], output: object) -> None:
        channels = inputs[0] if getattr(layers[name], "transposed", False) else output
        assert isinstance(channels, Tensor), "such layers take and give nothing else"
        # Each input or output number takes part in one product with every weight of its channel.
        counted[name] += channels.numel() * layers[name].get_parameter("weight")[0].numel()

    with watched(layers, count):
        couplings.answers()
    return dict(counted)


def _layer(layer: nn.Module, count: int) -> _Layer:
    outputs = int(getattr(layer, "out_channels", 0) or layer.get_parameter("weight").shape[0])
    inputs = int(getattr(layer, "in_channels", 0) or layer.get_parameter("weight").shape[1])
    depthwise = getattr(layer, "groups", 1) == outputs > 1
    inputs = 1 if depthwise else inputs
    return _Layer(count / (inputs * outputs), _Side(inputs), _Side(outputs))
