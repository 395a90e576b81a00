"""The operators the importer knows: what builds each, by its name in ONNX, one file for each group."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, TypeAlias

import onnx

from flyweight.compressor.errors import ModelError
from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.operators import (
    activation,
    arithmetic,
    attention,
    convolution,
    creation,
    elementwise,
    gathering,
    linear,
    normalisation,
    padding,
    pooling,
    quantized,
    recurrent,
    reduction,
    resizing,
    shape,
    sorting,
)

Build: TypeAlias = Callable[[Operation], Outcome]

BUILDERS: Final[Mapping[str, Build]] = {
    **activation.BUILDERS,
    **attention.BUILDERS,
    **convolution.BUILDERS,
    **creation.BUILDERS,
    **elementwise.BUILDERS,
    **gathering.BUILDERS,
    **linear.BUILDERS,
    **normalisation.BUILDERS,
    **padding.BUILDERS,
    **pooling.BUILDERS,
    **quantized.BUILDERS,
    **recurrent.BUILDERS,
    **reduction.BUILDERS,
    **resizing.BUILDERS,
    **shape.BUILDERS,
    **sorting.BUILDERS,
}
"""Operators of the standard domain; what ONNX Runtime added is under its domain and a dot."""

_STANDARD: Final = frozenset({"", "ai.onnx"})


def known_operator(node: onnx.NodeProto) -> Build:
    """Return what builds a node: the arithmetic of shapes where it can, else its operator's builder."""
    build = BUILDERS[_title(node)]

    def choose(operation: Operation) -> Outcome:
        computed = arithmetic.on_numbers(operation)
        return build(operation) if computed is None else computed

    return choose


def refuse_unknown(path: Path, nodes: Iterable[onnx.NodeProto]) -> None:
    """Check that every node can be built.

    Raises:
        ModelError: some cannot; it names their operators, and says so when the model is already quantized.
    """
    unknown = sorted({_title(node) for node in nodes} - BUILDERS.keys() - {"If"})
    if not unknown:
        return
    listed = unknown[0] if len(unknown) == 1 else f"{', '.join(unknown[:-1])} and {unknown[-1]}"
    if any(quantized.is_quantized(name) for name in unknown):
        raise ModelError(
            f"The model {path} is already quantized (it uses {listed}); "
            "give the model it was made from to train or prune it."
        )
    raise ModelError(
        f"The model {path} uses {listed}, which the importer does not know; "
        "only passes for ONNX graphs fit this model."
    )


def _title(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
