"""Layers merged into one where that changes nothing but their number."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.narrow.branches import merged_branches
from flyweight.compressor.passes.narrow.tracing import is_called_once, layer_of, shape_of, tidied, traced
from flyweight.compressor.training import tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

_SUMS: Final = (operator.add, operator.iadd, torch.add)
_NORMS: Final = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True, slots=True)
class Fuse(Pass):
    """Merges layers whose composition or sum is one layer; answers stay the same but for rounding.

    - normalisation into the convolution or linear layer before it (Jacob et al. 2018, section 3.2): what
      ONNX Runtime does as well, but before training for quantization, and for linear layers too;
    - parallel branches of one input that are added (Ding et al. 2021, "RepVGG", section 3.3): convolutions
      with different kernels, identities and their normalisations become one kernel; ONNX Runtime cannot;
    - a linear layer after another with nothing between, where the product is not larger.
    """

    name: ClassVar[str] = "fuse"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return the module as a graph with fewer layers.

        Raises:
            PassError: the module cannot be traced.
        """
        with threads(context.threads):
            graph = traced(model.torch_module(), [tensor_of(array) for array in model.example.values()])
            folded = _until_none_is_left(graph, _fold_one)
            chained = _until_none_is_left(graph, _chain_one)
            branches = _until_none_is_left(graph, _merge_one)
        if not folded + chained + branches:
            return PassResult(model, changed=False, notes=("No two layers could be merged into one.",))
        note = (
            f"Merged {folded} normalisations into the layers before them, {branches} pairs of parallel "
            f"branches and {chained} pairs of linear layers."
        )
        return PassResult(replace(model, module=graph), changed=True, notes=(note,))


def _until_none_is_left(graph: fx.GraphModule, step: Callable[[fx.GraphModule], bool]) -> int:
    count = 0
    while step(graph):
        tidied(graph)
        count += 1
    return count


def _fold_one(graph: fx.GraphModule) -> bool:
    """Fold one normalisation into the layer before it, in place."""
    for node in graph.graph.nodes:
        norm, maker = layer_of(graph, node), node.args[0] if node.args else None
        layer = layer_of(graph, maker)
        if not isinstance(norm, _NORMS) or not norm.track_running_stats or not isinstance(maker, fx.Node):
            continue
        if len(maker.users) != 1 or not is_called_once(graph, maker):
            continue
        if isinstance(layer, nn.Conv1d | nn.Conv2d):
            graph.set_submodule(str(maker.target), fuse_conv_bn_eval(layer, norm))
        elif isinstance(layer, nn.Linear) and len(shape_of(maker) or ()) == 2:
            graph.set_submodule(str(maker.target), fuse_linear_bn_eval(layer, norm))
        else:
            continue
        node.replace_all_uses_with(maker)
        return True
    return False


def _chain_one(graph: fx.GraphModule) -> bool:
    """Multiply one linear layer into the one after it, in place."""
    for node in graph.graph.nodes:
        later, maker = layer_of(graph, node), node.args[0] if node.args else None
        earlier = layer_of(graph, maker)
        if type(later) is not nn.Linear or type(earlier) is not nn.Linear or not isinstance(maker, fx.Node):
            continue
        alone = len(maker.users) == 1 and is_called_once(graph, maker) and is_called_once(graph, node)
        product = earlier.in_features * later.out_features
        if not alone or product > earlier.weight.numel() + later.weight.numel():
            continue
        graph.set_submodule(str(node.target), _product(earlier, later))
        node.args = maker.args
        return True
    return False


def _product(earlier: nn.Linear, later: nn.Linear) -> nn.Linear:
    """Return y = B (A x + a) + b as one layer."""
    merged = nn.Linear(earlier.in_features, later.out_features).to(later.weight.dtype)
    with torch.no_grad():
        merged.weight.copy_((later.weight.double() @ earlier.weight.double()).to(merged.weight.dtype))
        bias = torch.zeros(later.out_features, dtype=torch.float64)
        if earlier.bias is not None:
            bias += later.weight.double() @ earlier.bias.double()
        if later.bias is not None:
            bias += later.bias.double()
        merged.bias.copy_(bias)
    return merged


def _merge_one(graph: fx.GraphModule) -> bool:
    """Merge one pair of added branches, in place."""
    for node in graph.graph.nodes:
        if node.op != "call_function" or node.target not in _SUMS or len(node.args) != 2 or node.kwargs:
            continue
        for branch, beside in (node.args, node.args[::-1]):
            merged = _sum_of_branches(graph, branch, beside)
            if merged is not None:
                graph.set_submodule(str(branch.target), merged)
                node.replace_all_uses_with(branch)
                return True
    return False


def _sum_of_branches(graph: fx.GraphModule, branch: object, beside: object) -> nn.Module | None:
    """Return one layer for two branches of one input that nothing else reads, or None."""
    layer = layer_of(graph, branch)
    if layer is None or not isinstance(branch, fx.Node) or not isinstance(beside, fx.Node):
        return None
    source = branch.args[0] if branch.args else None
    branches = [branch] if beside is source else [branch, beside]
    if branch is beside or shape_of(branch) != shape_of(beside):
        return None
    if any(not part.args or part.args[0] is not source or len(part.users) != 1 for part in branches):
        return None
    if not all(layer_of(graph, part) is not None and is_called_once(graph, part) for part in branches):
        return None
    return merged_branches(layer, None if beside is source else layer_of(graph, beside))
