"""Whether a model is worth starting with: said before any work is done, in one sentence."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.onnx_model import all_graphs, all_tensors, load_graph
from flyweight.compressor.storage import Array, chunks

_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
# What multiplies its constants: an infinity there is a broken weight. Elsewhere it may be meant: the mask of
# a causal attention holds minus infinities, the bound of a Clip a plus.
_WEIGHTED: Final = frozenset(
    {
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "GRU",
        "InstanceNormalization",
        "LayerNormalization",
        "LSTM",
        "MatMul",
        "RNN",
    }
)


def check_source(path: Path) -> None:
    """Check that a model can be started from: readable, its inputs described, its weights finite.

    Raises:
        ModelError: as said, in one sentence.
    """
    model = load_graph(path, weights=False)
    check_inputs(model)
    check_finite(model, path.parent)


def check_inputs(model: onnx.ModelProto) -> None:
    """Check that every input says how many axes it has; nobody could tell how to feed it otherwise.

    Raises:
        ModelError: one does not.
    """
    for value in model.graph.input:
        kind = value.type.tensor_type
        if value.type.HasField("tensor_type") and not kind.HasField("shape"):
            raise ModelError(
                f"The model's input {value.name!r} has no shape; export the model with one, free lengths by "
                "name, for example [batch, 3, 224, 224]."
            )


def check_finite(model: onnx.ModelProto, folder: Path) -> None:
    """Check that no weight is not-a-number, and none that is multiplied with is infinite.

    Args:
        model: with or without its external data, which are read tensor by tensor.
        folder: where external data are.

    Raises:
        ModelError: one is, or the bytes of one cannot be read.
    """
    multiplied = set(_multiplied(model))
    for tensor in all_tensors(model):
        if tensor.data_type in _FLOATS:
            _check_tensor(tensor, folder, infinities=tensor.name not in multiplied)


def _check_tensor(tensor: onnx.TensorProto, folder: Path, *, infinities: bool) -> None:
    for values in run_foreign(
        lambda: _pieces(tensor, folder),
        lambda reason: ModelError(
            f"The model's tensor {tensor.name!r} cannot be read ({reason}); export the model again."
        ),
    ):
        found = "not-a-number" if np.isnan(values).any() else None
        if found is None and not infinities and np.isinf(values).any():
            found = "infinite values"
        if found is not None:
            raise ModelError(
                f"The model's weight {tensor.name!r} holds {found}: training diverged, or the file is "
                "damaged; export a sound checkpoint."
            )


def _pieces(tensor: onnx.TensorProto, folder: Path) -> Iterable[Array]:
    """Return a tensor's values, piece by piece where they are in a file of their own."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return [_wide(numpy_helper.to_array(tensor))]
    entries = {entry.key: entry.value for entry in tensor.external_data}
    count = math.prod(tensor.dims)
    if not count:
        return []
    # numpy has no bfloat16: its bits are the upper half of a float32's.
    bits = tensor.data_type == TensorProto.BFLOAT16
    dtype = np.dtype("<u2") if bits else helper.tensor_dtype_to_np_dtype(tensor.data_type)
    mapped = np.memmap(folder / entries["location"], dtype, "c", int(entries.get("offset") or 0), count)
    pieces = chunks(mapped.view(np.ndarray))
    return ((piece.astype(np.uint32) << 16).view(np.float32) if bits else _wide(piece) for piece in pieces)


def _wide(values: Array) -> Array:
    """Return values in a type in which numpy knows what is finite."""
    return values.astype(np.float32) if values.dtype.itemsize < 4 else values


def _multiplied(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the names of constants that some operator multiplies with."""
    for graph in all_graphs(model.graph):
        for node in graph.node:
            if node.op_type in _WEIGHTED:
                yield from node.input
    for function in model.functions:
        for node in function.node:
            if node.op_type in _WEIGHTED:
                yield from node.input
