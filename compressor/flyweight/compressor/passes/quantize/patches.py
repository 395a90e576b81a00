"""The vectors that a layer multiplies its weights with: rows of a matrix, or patches of an image."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.passes.quantize.layers import Layer

Array = NDArray[Any]


def can_cut(layer: Layer) -> bool:
    """Tell whether `cut_patches` knows how the layer reads its input."""
    node = layer.node
    if node.op_type != "Conv":
        return not attribute(node, "transA", 0)
    padding = next((found.s for found in node.attribute if found.name == "auto_pad"), b"NOTSET")
    return padding == b"NOTSET"


def cut_patches(layer: Layer, values: Array, most: int, random: np.random.Generator) -> Array:
    """Return what the layer multiplies, (groups, patches, n), at most `most` patches drawn at random.

    Values are (batch, channels, ...) for a convolution and (..., n) for a product. A patch has the order of a
    row of the layer's weight: channel, then place in the kernel.
    """
    if layer.node.op_type != "Conv":
        rows = values.reshape(-1, values.shape[-1])
        return rows[_drawn(len(rows), most, random)][None]
    rank = values.ndim - 2
    kernel = list(layer.weight.dims[2:])
    strides = attribute(layer.node, "strides", [1] * rank)
    dilations = attribute(layer.node, "dilations", [1] * rank)
    pads = attribute(layer.node, "pads", [0] * (2 * rank))
    widths = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(values, widths)
    spans = [(length - 1) * step + 1 for length, step in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
    steps: tuple[Any, ...] = tuple(slice(None, None, step) for step in (*strides, *dilations))
    windows = windows[(slice(None), slice(None), *steps)]
    places = [len(values), *windows.shape[2 : 2 + rank]]
    chosen = np.unravel_index(_drawn(int(np.prod(places)), most, random), places)
    # Index arrays apart from one another come first: (patches, channels, kernel...).
    taken: tuple[Any, ...] = (chosen[0], slice(None), *chosen[1:])
    patches = windows[taken]
    groups = layer.groups
    return np.moveaxis(patches.reshape(len(patches), groups, -1), 1, 0)


def _drawn(count: int, most: int, random: np.random.Generator) -> Array:
    """Return places among `count`, all or `most` of them."""
    return np.arange(count) if count <= most else np.sort(random.choice(count, most, replace=False))
