"""What the readers of channels see on calibration data, and taking channels out of a graph."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import onnx
from onnx import numpy_helper

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.layout.view import View
from flyweight.compressor.passes.prune.elimination import Remainder, full_weights
from flyweight.compressor.passes.prune.graph_channels import Channels
from flyweight.compressor.passes.prune.second_moments import Matrix, Moments, rows_read
from flyweight.compressor.passes.quantize.calibration import observe
from flyweight.compressor.passes.quantize.layers import layers_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

_ROWS: Final = 16_384
_ROWS_A_COLUMN: Final = 4
"""Enough to estimate a covariance: as many rows as this for each column, and never fewer than _ROWS."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What the reader of some channels saw.

    Attributes:
        channels: that it reads.
        fitting: over every other sample, the first among them.
        checking: over the others.
    """

    channels: Channels
    fitting: Moments
    checking: Moments

    @property
    def columns(self) -> int:
        """How many numbers a row of the reader's weights has."""
        return self.channels.width * self.channels.block

    @property
    def weights(self) -> Matrix:
        """The reader's weights, (columns, outputs)."""
        return np.asarray(self.channels.reader.rows().T, dtype=np.float64)

    @property
    def centred(self) -> bool:
        """Whether the reader's bias makes up for a shift of the mean."""
        return self.channels.reader.bias is not None


def checking_samples(samples: int) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
    """Return which samples are in `checking`."""
    return np.arange(1, samples, 2)


def mirrored(data: "DataSet") -> "DataSet":
    """Return samples with their images' mirror images behind them, each in the half of its original.

    Raises:
        PassError: no input is images: samples, channels, height, width.
    """
    images = {name for name, array in data.inputs.items() if array.ndim == 4}
    if not images:
        raise PassError("mirror is for images, and no input has samples, channels, height and width.")
    # An even number, so that a mirror image is in the half that its original is in.
    even = data.first(data.samples - data.samples % 2).inputs
    return DataSet(
        {
            name: np.concatenate([array, array[..., ::-1] if name in images else array])
            for name, array in even.items()
        }
    )


def give_biases(model: onnx.ModelProto) -> None:
    """Give every layer that may have a bias one of its own, of zeros where it had none, in place.

    One that several layers share becomes a copy for each, and a factor it has goes into it.
    """
    graph = model.graph
    view = View(graph)
    for layer in layers_of(graph):
        node, values = layer.node, np.zeros(layer.channels, dtype=np.float32)
        if node.op_type == "MatMul":
            continue
        if len(node.input) > 2 and node.input[2]:
            if layer.bias is None or (len(view.consumers(node.input[2])) == 1 and layer.has_own_bias(graph)):
                continue
            values = (numpy_helper.to_array(layer.bias) * attribute(node, "beta", 1.0)).astype(np.float32)
        kept = [found for found in node.attribute if found.name != "beta"]
        del node.attribute[:], node.input[2:]
        node.attribute.extend(kept)
        name = f"{layer.name}__bias"
        graph.initializer.append(numpy_helper.from_array(values, name))
        node.input.append(name)


def look(model: onnx.ModelProto, found: Sequence[Channels], context: "Context") -> list[Seen]:
    """Run the calibration data through the graph and return what the readers saw.

    Raises:
        DataError: the data do not fit the model.
        PassError: a layer sees infinities or not-a-number.
    """
    random = np.random.default_rng(context.seed)
    seen = [
        Seen(channels, *(Moments(channels.width * channels.block) for _ in range(2))) for channels in found
    ]
    half = max(context.calibration.samples // 2, 1)
    names = list(dict.fromkeys(channels.reader.source for channels in found))
    done = 0
    for rows, values in observe(model, names, context, "looking at layers"):
        first, second = slice(done % 2, None, 2), slice(1 - done % 2, None, 2)
        done += rows
        for each in seen:
            reader = each.channels.reader
            kernel = tuple(reader.weight.dims)[2:] if reader.node.op_type == "Conv" else ()
            most = math.ceil(max(_ROWS, _ROWS_A_COLUMN * each.columns) / half)
            for part, moments in ((first, each.fitting), (second, each.checking)):
                taken = values[reader.source][part]
                if len(taken):
                    read = rows_read(reader.node, kernel, taken, most, random)
                    _require_finite(read, reader.source)
                    moments.add(read)
    return seen


def _require_finite(rows: Array, source: str) -> None:
    if not np.isfinite(rows).all():
        raise PassError(
            f"The tensor {source!r} holds values that are not finite on the calibration data, so that no "
            "layer can be fitted on it; check the data and the model."
        )


def overrides(seen: Seen, remainder: Remainder, mean: Matrix) -> dict[str, np.ndarray]:
    """Return what the reader's weight and bias become, in their full shapes, by the names of the tensors.

    y = W^T x + b becomes y' = V^T x + b + (W - V)^T E[x], V zero where channels went.
    """
    reader = seen.channels.reader
    full = full_weights(remainder, seen.columns, seen.channels.block)
    rows = full.T.astype(np.float32)
    shape = [length for place, length in enumerate(reader.weight.dims) if place != reader.axis]
    weight = np.moveaxis(rows.reshape(reader.channels, *shape), 0, reader.axis)
    changed = {reader.weight.name: np.ascontiguousarray(weight)}
    if reader.bias is not None:
        shift = (seen.weights - full).T @ mean
        changed[reader.bias.name] = (numpy_helper.to_array(reader.bias) + shift).astype(np.float32)
    return changed


def cut(model: onnx.ModelProto, found: Sequence[tuple[Seen, Remainder]]) -> None:
    """Take channels out of the graph, in place, with the readers changed to make up for them."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for seen, remainder in found:
        mean = (seen.fitting + seen.checking).mean
        for name, values in overrides(seen, remainder, mean).items():
            stored[name].CopyFrom(numpy_helper.from_array(values, name))
    for seen, remainder in found:
        for slot in seen.channels.slots:
            columns = (remainder.kept[:, None] * slot.block + np.arange(slot.block)).ravel()
            values = np.take(numpy_helper.to_array(stored[slot.name]), columns, axis=slot.axis)
            stored[slot.name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), slot.name))
        for node in seen.channels.depthwise:
            _set_groups(node, len(remainder.kept))
        for node in seen.channels.reshapes:
            name = f"{node.output[0]}__rows"
            # It is there already when an earlier cut made it.
            if name not in stored:
                model.graph.initializer.append(numpy_helper.from_array(np.array([0, -1]), name))
            node.input[1] = name
    # The shapes in it are of the graph as it was.
    del model.graph.value_info[:]


def _set_groups(node: onnx.NodeProto, groups: int) -> None:
    for found in node.attribute:
        if found.name == "group":
            found.i = groups
