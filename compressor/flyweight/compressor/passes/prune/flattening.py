"""Reshapes with a number of channels in them, as ONNX files have before a linear layer, made free of it."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, fx, nn

from flyweight.compressor.passes.prune.attention_graph import called, shapes_of


def free_flattening(module: nn.Module, example: Sequence[Tensor]) -> int:
    """Turn reshapes of a graph to (rows, features) into flatten(1), in place, and return how many there were.

    `reshape(x, [-1, 1568])` stops working when channels before it go; flatten(1) says the same without the
    number. Other modules than graphs are left alone.
    """
    if not isinstance(module, fx.GraphModule):
        return 0
    shapes, changed = shapes_of(module, example), 0
    for node in list(module.graph.nodes):
        if called(node) not in {"reshape", "view"}:
            continue
        source = node.args[0]
        before, after = shapes.get(source, ()), shapes.get(node, ())
        lengths = node.args[1] if len(node.args) == 2 else node.args[1:]
        fixed = isinstance(lengths, list | tuple) and len(lengths) == 2 and isinstance(lengths[1], int)
        if fixed and len(before) > 2 and after == (before[0], prod(before[1:])):
            with module.graph.inserting_before(node):
                flat = module.graph.call_function(torch.flatten, (source, 1))
            node.replace_all_uses_with(flat)
            changed += 1
    if changed:
        module.graph.eliminate_dead_code()
        module.recompile()
    return changed
