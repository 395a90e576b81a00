"""Factorisation of a torch module's layers."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.passes.base import Form, PassResult
from flyweight.compressor.passes.factorize.decomposition import Array
from flyweight.compressor.passes.factorize.layers import Geometry, Layer, Stage, Watcher, factorise
from flyweight.compressor.passes.factorize.settings import (
    CALIBRATION_ROWS,
    NOTHING_TO_GAIN,
    Factorization,
    describe,
)
from flyweight.compressor.training import all_answers, rows_of, tensor_of, threads
from flyweight.compressor.watching import watched

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class Factorize(Factorization):
    """Replaces linear layers and convolutions by products of thinner ones, where that saves multiply-adds.

    A fine-tune or distill after it recovers most of what was lost.

    Attributes:
        energy: fraction of a layer's energy that stays; used where there is no budget.
        budget: multiply-adds of all such layers together, as a fraction of what they are; ranks are then
            shared out so that the least energy is lost in all. None goes by energy.
        scheme: of kernels larger than 1 x 1.
        aware: whether ranks and factors follow the layers' answers on calibration data instead of their
            weights alone; much better without training. Spatial and Tucker kernels follow their weights.
        round_to: ranks are multiples of this: kernels are fastest at multiples of 16.
    """

    name: ClassVar[str] = "factorize"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a copy of the module with factorised layers.

        Raises:
            PassError: the budget cannot be met, or the module does not work with factorised layers.
        """
        module = copy.deepcopy(model.torch_module()).eval()
        with threads(context.threads):
            layers = _layers(module, model, context, aware=self.aware)
            rungs = self.choose(layers, context.check_time) if layers else []
            if not any(rung.ranks for rung in rungs):
                return PassResult(model, changed=False, notes=(NOTHING_TO_GAIN,))
            for layer, rung in zip(layers, rungs, strict=True):
                if rung.ranks:
                    context.check_time()
                    _replace(module, layer.name, factorise(layer, self.scheme, rung.ranks))
            _check(module, model)
        return PassResult(replace(model, module=module), changed=True, notes=(describe(layers, rungs),))


def _layers(module: nn.Module, model: "Model", context: "Context", *, aware: bool) -> list[Layer]:
    """Return the layers that were seen running once for every sample; others keep their form."""
    data = context.training if context.training is not None else context.calibration
    rows = rows_of(data.first(CALIBRATION_ROWS if aware else 1), tuple(model.example))
    found = {name: layer for name, layer in module.named_modules() if _is_candidate(layer)}
    watchers = {name: _LayerWatcher(layer) for name, layer in found.items()}
    with watched(found, lambda name, _inputs, output: watchers[name].take(output)):
        all_answers(module, rows.inputs, between=context.check_time, batch_rows=32)
    return [
        _layer(name, layer, watchers[name], len(rows), aware=aware)
        for name, layer in found.items()
        if watchers[name].places
    ]


def _is_candidate(layer: nn.Module) -> bool:
    if type(layer) is nn.Linear:
        return True
    return (
        type(layer) is nn.Conv2d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


class _LayerWatcher:
    """What a layer answers, taken in run by run."""

    def __init__(self, layer: nn.Module) -> None:
        weight = layer.get_parameter("weight")
        self._watcher = Watcher(len(weight), centred=layer.bias is not None)
        self._is_map = weight.ndim == 4
        self.places = 0

    def take(self, output: object) -> None:
        assert isinstance(output, Tensor), "such layers give nothing else"
        channels_last = output.movedim(1, -1) if self._is_map else output
        flat = channels_last.reshape(-1, channels_last.shape[-1]).numpy()
        self.places += len(flat)
        self._watcher.add(flat)

    def responses(self) -> Any:
        return self._watcher.responses()


def _layer(name: str, layer: nn.Module, seen: _LayerWatcher, rows: int, *, aware: bool) -> Layer:
    weight = _array(layer.get_parameter("weight"))
    bias = None if layer.bias is None else _array(layer.get_parameter("bias"))
    geometry = Geometry(places=seen.places / rows)
    if isinstance(layer, nn.Conv2d):
        (down, across), (tall, wide) = layer.stride, layer.dilation
        top, left = (int(pad) for pad in layer.padding)
        geometry = replace(
            geometry, strides=(down, across), pads=(top, left, top, left), dilations=(tall, wide)
        )
    else:
        weight = weight[:, :, None, None]
    return Layer(name, weight, bias, geometry, seen.responses() if aware else None)


def _array(parameter: Tensor) -> Array:
    return np.asarray(parameter.detach().double().numpy())


def _replace(module: nn.Module, name: str, stages: Sequence[Stage]) -> None:
    """Put a sequence of layers in the place of one."""
    old = module.get_submodule(name)
    like = old.get_parameter("weight")
    layers = [_linear(stage) if isinstance(old, nn.Linear) else _convolution(stage) for stage in stages]
    new = nn.Sequential(*layers).to(dtype=like.dtype).eval()
    if not like.requires_grad:
        new.requires_grad_(False)  # noqa: FBT003 - torch's own verb
    # A layer that is called by two names is shared, and stays so.
    for other, layer in list(module.named_modules(remove_duplicate=False)):
        if layer is old:
            module.set_submodule(other, new)


def _linear(stage: Stage) -> nn.Linear:
    out, inner = stage.weight.shape[:2]
    layer = nn.Linear(inner, out, bias=stage.bias is not None)
    _fill(layer, {"weight": stage.weight[:, :, 0, 0], "bias": stage.bias})
    return layer


def _convolution(stage: Stage) -> nn.Conv2d:
    out, inner, height, width = stage.weight.shape
    layer = nn.Conv2d(
        inner,
        out,
        (height, width),
        stride=stage.geometry.strides,
        padding=stage.geometry.pads[:2],
        dilation=stage.geometry.dilations,
        bias=stage.bias is not None,
    )
    _fill(layer, {"weight": stage.weight, "bias": stage.bias})
    return layer


def _fill(layer: nn.Module, arrays: Mapping[str, Array | None]) -> None:
    with torch.no_grad():
        for name, array in arrays.items():
            if array is not None:
                layer.get_parameter(name).copy_(torch.from_numpy(np.ascontiguousarray(array)))


def _check(module: nn.Module, model: "Model") -> None:
    """Run the module once: code that reads a layer's weight itself does not work on a sequence."""
    inputs = [tensor_of(array) for array in model.example.values()]
    run_foreign(
        lambda: all_answers(module, inputs),
        lambda reason: PassError(f"The module does not work with factorised layers ({reason})."),
    )
