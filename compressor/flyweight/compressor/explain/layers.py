"""What changed in each layer: bits, zeros, and how faithful its weights and its answers still are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from flyweight.compressor.errors import CompressorError
from flyweight.compressor.noise import signal_to_noise
from flyweight.compressor.onnx_model import lift_constants, load_graph, save_graph
from flyweight.compressor.sessions import Session, SessionSettings

Array = NDArray[Any]

# Where an operator holds its weight, and where that weight's scale and zero point are if it is quantized.
_PLACES: Final[Mapping[str, tuple[int, int | None, int | None]]] = {
    "Conv": (1, None, None),
    "ConvTranspose": (1, None, None),
    "Gemm": (1, None, None),
    "MatMul": (1, None, None),
    "Gather": (0, None, None),
    "LSTM": (1, None, None),
    "GRU": (1, None, None),
    "RNN": (1, None, None),
    "QLinearConv": (3, 4, 5),
    "QLinearMatMul": (3, 4, 5),
    "MatMulInteger": (1, None, 3),
    "ConvInteger": (1, None, 3),
    "MatMulNBits": (1, None, None),
    "Attention": (1, None, None),
    "FusedMatMul": (1, None, None),
}
_WIDENING: Final = frozenset(
    {"DequantizeLinear", "Cast", "Mul", "Gather", "Transpose", "Reshape", "Identity"}
)
# What the table shows for "the same" and for "nothing in common".
_MOST_DB: Final = 200.0
# Tensors of one batch that are compared at once.
_MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class LayerChange:
    """One layer of a variant.

    Attributes:
        name: its node's name, or its output's.
        operator: what it is in the variant.
        parameters: values in its weight.
        baseline_parameters: the same layer's in the baseline; None where there is no such layer.
        bits: that a value of its weight is stored in.
        zeros: share of its weight's values that are zero.
        snr_db: of its output against the baseline's, 10 log10(sum b**2 / sum (v - b)**2), on some samples;
            None where the baseline has no tensor of that name and shape.
    """

    name: str
    operator: str
    parameters: int
    baseline_parameters: int | None
    bits: int
    zeros: float
    snr_db: float | None


def compare_layers(baseline: Path, variant: Path, feed: Mapping[str, Array]) -> tuple[LayerChange, ...]:
    """Return the layers of the variant, in order, against those of the same name in the baseline.

    Args:
        baseline: the original's ONNX file.
        variant: the variant's; a coded one decoded.
        feed: a few samples, on which outputs are compared.

    Raises:
        ModelError: a file cannot be read.
    """
    old, new = load_graph(baseline), load_graph(variant)
    for model in (old, new):
        lift_constants(model)
    originals, mine = list(_layers(old)), list(_layers(new))
    theirs = {output: weight for output, _, _, weight, _ in originals}
    if len(originals) == len(mine):
        # Fusing a layer with what follows it renames its output, and the order stays.
        for (_, _, _, weight, _), (output, *_) in zip(originals, mine, strict=True):
            theirs.setdefault(output, weight)
    ratios = _output_ratios(old, new, [output for output, *_ in mine], feed, variant.parent)
    return tuple(
        LayerChange(
            name=name,
            operator=operator,
            parameters=int(weight.size),
            baseline_parameters=int(theirs[output].size) if output in theirs else None,
            bits=_bits(weight),
            zeros=float((weight == zero).mean()) if weight.size else 0.0,
            snr_db=ratios.get(output),
        )
        for output, name, operator, weight, zero in mine
    )


def _bits(weight: Array) -> int:
    return 1 if weight.dtype == bool else 8 * weight.dtype.itemsize


def _layers(model: onnx.ModelProto) -> Iterator[tuple[str, str, str, Array, Array | int]]:
    """Yield output, name, operator, stored weight and the value that stands for zero, of each layer."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        places = _PLACES.get(node.op_type)
        if places is None or len(node.input) <= places[0]:
            continue
        found = _stored_weight(node.input[places[0]], stored, makers)
        if found is None:
            continue
        tensor, zero_name = found
        if places[2] is not None and len(node.input) > places[2]:
            zero_name = zero_name or node.input[places[2]]
        zero = numpy_helper.to_array(stored[zero_name]) if zero_name in stored else np.zeros(())
        weight = numpy_helper.to_array(tensor)
        if weight.ndim < 2:
            continue
        yield node.output[0], node.name or node.output[0], node.op_type, weight, int(zero.ravel()[0])


def _stored_weight(
    name: str, stored: Mapping[str, onnx.TensorProto], makers: Mapping[str, onnx.NodeProto]
) -> tuple[onnx.TensorProto, str] | None:
    """Follow a weight back through what widens it to the initializer with its codes."""
    zero = ""
    for _ in range(8):
        if name in stored:
            return stored[name], zero
        maker = makers.get(name)
        if maker is None or maker.op_type not in _WIDENING:
            return None
        if maker.op_type == "DequantizeLinear" and len(maker.input) > 2:
            zero = maker.input[2]
        # A table's places say more of the weight than the table.
        name = maker.input[1] if maker.op_type == "Gather" and maker.input[0] in stored else maker.input[0]
    return None


def _output_ratios(
    old: onnx.ModelProto, new: onnx.ModelProto, names: list[str], feed: Mapping[str, Array], folder: Path
) -> dict[str, float]:
    """Return the signal-to-noise ratio of each tensor that both graphs compute under one name."""
    makers = {output: node.op_type for node in old.graph.node for output in node.output}
    shared = [name for name in names if name in makers]
    try:
        theirs, mine = (_observe(model, shared, feed, folder) for model in (old, new))
    except CompressorError:
        # Some graphs cannot show their inside, and the table is worth having without this column.
        return {}
    found = {}
    for name in shared:
        # Quantizers drop a ReLU that the range of the layer before it makes superfluous, and keep its name.
        value = np.maximum(mine[name], 0) if makers[name] == "Relu" else mine[name]
        if theirs[name].shape == value.shape and theirs[name].dtype.kind == value.dtype.kind == "f":
            ratio = signal_to_noise(theirs[name], value)
            found[name] = min(max(ratio, -_MOST_DB), _MOST_DB)
    return found


def _observe(
    model: onnx.ModelProto, names: list[str], feed: Mapping[str, Array], folder: Path
) -> dict[str, Array]:
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    present = {value.name for value in observed.graph.output}
    observed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in present)
    path = save_graph(observed, folder / "observed.onnx")
    try:
        found = Session(path, SessionSettings(optimise=False)).run(feed)
    finally:
        for file in folder.glob("observed.onnx*"):
            file.unlink()
    if sum(array.nbytes for array in found.values()) > _MOST_BYTES:
        return {name: found[name].ravel()[:: max(1, found[name].size // 100_000)] for name in names}
    return found
