"""Activation functions that int8 kernels like, in the place of those that they do not."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from torch import Tensor, fx, nn
from torch.nn import functional

from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.narrow.elementwise import smooth_activations
from flyweight.compressor.passes.narrow.tracing import tidied, traced
from flyweight.compressor.training import tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


class Activation(Enum):
    """What a smooth activation becomes."""

    RELU = "relu"
    """Folded into the int8 convolution before it: costs nothing."""

    HARD_SWISH = "hard-swish"
    """Nearer to SiLU and GELU (Howard et al. 2019, "MobileNetV3", section 5.2), but a float island."""


_LAYERS: Final = (nn.SiLU, nn.GELU, nn.Mish, nn.ELU, nn.CELU, nn.SELU, nn.Softplus, nn.Hardswish)


@dataclass(frozen=True, slots=True)
class ReplaceActivations(Pass):
    """Replaces SiLU, GELU, Mish, ELU and their kind, as layers and as calls, by ReLU or hard swish.

    ONNX Runtime quantizes convolutions with ReLU 2.1 to 2.6 times as fast, with SiLU 1.5 and with hard swish
    1.2 times: the others leave a float island after every layer. The module needs distillation afterwards.

    Attributes:
        to: what they become. Hard swish itself is replaced by ReLU only.
    """

    name: ClassVar[str] = "replace-activations"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    to: Activation = Activation.RELU

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return the module with other activations, as a graph of calls.

        Raises:
            PassError: the module cannot be traced.
        """
        with threads(context.threads):
            graph = traced(model.torch_module(), [tensor_of(array) for array in model.example.values()])
            calls = self._replace_calls(graph)
            layers = self._replace_layers(graph)
        if not calls + layers:
            return PassResult(model, changed=False, notes=("No activation is in the way of int8 kernels.",))
        note = f"{calls + layers} activations became {self.to.value}; distil before you judge the model."
        return PassResult(replace(model, module=graph), changed=True, notes=(note,))

    def _replace_layers(self, module: nn.Module) -> int:
        count = 0
        for name, layer in list(module.named_modules(remove_duplicate=False)):
            if isinstance(layer, _LAYERS) and not self._stays(layer):
                module.set_submodule(name, self._made())
                count += 1
        return count

    def _replace_calls(self, graph: fx.GraphModule) -> int:
        found = smooth_activations(graph, hard_swish=self.to is Activation.RELU)
        became = dict[fx.Node, fx.Node]()
        for node, source in found:
            with graph.graph.inserting_after(node):
                new = graph.graph.call_function(self._function(), (became.get(source, source),))
            node.replace_all_uses_with(new)
            became[node] = new
        if found:
            tidied(graph)
        return len(found)

    def _stays(self, layer: nn.Module) -> bool:
        return self.to is Activation.HARD_SWISH and isinstance(layer, nn.Hardswish)

    def _made(self) -> nn.Module:
        return nn.ReLU() if self.to is Activation.RELU else nn.Hardswish()

    def _function(self) -> Callable[[Tensor], Tensor]:
        return functional.relu if self.to is Activation.RELU else functional.hardswish
