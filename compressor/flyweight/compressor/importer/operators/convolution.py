"""Convolutions, as torch's layers where their weights are constants."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from torch import nn
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.operators.padding import Window
from flyweight.compressor.importer.values import Symbol

_LAYERS: Final[Mapping[int, Callable[..., nn.Module]]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Final[Mapping[int, Callable[..., nn.Module]]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_CALLS: Final = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED_CALLS: Final = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _conv(operation: Operation) -> Outcome:
    x, weight, bias = operation.tensor(0), operation.tensor(1), operation.optional(2)
    axes = _spatial(operation, x)
    window = Window(operation, operation.integers("kernel_shape", weight.tensor.shape[2:]))
    x = window.prepare(operation, x)
    options: dict[str, Any] = {
        "stride": tuple(window.stride),
        "padding": tuple(window.pads),
        "dilation": tuple(window.dilation),
        "groups": operation.integer("group", 1),
    }
    if not weight.is_constant or (bias is not None and not bias.is_constant):
        return operation.call(_CALLS[axes], x, weight, bias, **options)
    wide, narrow = weight.tensor.shape[:2]
    kernel_shape: Any = tuple(window.kernel)
    layer = _LAYERS[axes](narrow * options["groups"], wide, kernel_shape, bias=bias is not None, **options)
    return _filled(operation, layer, weight, bias, x)


def _conv_transpose(operation: Operation) -> Outcome:
    x, weight, bias = operation.tensor(0), operation.tensor(1), operation.optional(2)
    axes = _spatial(operation, x)
    kernel = operation.integers("kernel_shape", weight.tensor.shape[2:])
    stride = operation.integers("strides", [1] * axes)
    dilation = operation.integers("dilations", [1] * axes)
    extra = operation.integers("output_padding", [0] * axes)
    pads, extra = _transposed_pads(operation, x, (kernel, stride, dilation, extra))
    begins, ends = pads[:axes], pads[axes:]
    symmetric = begins == ends and min(begins) >= 0
    options: dict[str, Any] = {
        "stride": tuple(stride),
        "padding": tuple(begins) if symmetric else (0,) * axes,
        "output_padding": tuple(extra) if symmetric else (0,) * axes,
        "groups": operation.integer("group", 1),
        "dilation": tuple(dilation),
    }
    if weight.is_constant and (bias is None or bias.is_constant):
        narrow, wide = weight.tensor.shape[:2]
        kernel_shape: Any = tuple(kernel)
        wide *= options["groups"]
        layer = _TRANSPOSED[axes](narrow, wide, kernel_shape, bias=bias is not None, **options)
        y = _filled(operation, layer, weight, bias, x)
    else:
        y = operation.call(_TRANSPOSED_CALLS[axes], x, weight, bias, **options)
    if symmetric:
        return y
    return _cropped(operation, y, begins, [end - more for end, more in zip(ends, extra, strict=True)], bias)


def _transposed_pads(
    operation: Operation, x: Symbol, geometry: tuple[list[int], list[int], list[int], list[int]]
) -> tuple[list[int], list[int]]:
    """Return the pads and the output padding; ONNX, ConvTranspose, `output_shape` and `auto_pad`."""
    kernel, stride, dilation, extra = geometry
    axes, automatic = len(kernel), operation.text("auto_pad", "NOTSET")
    wanted = operation.integers("output_shape", [])
    if not wanted and automatic in {"NOTSET", "VALID"}:
        return operation.integers("pads", [0] * 2 * axes), extra
    lengths = list(x.tensor.shape[2:])
    wanted = wanted[-axes:] or [length * step for length, step in zip(lengths, stride, strict=True)]
    totals = [
        (lengths[axis] - 1) * stride[axis]
        + extra[axis]
        + (kernel[axis] - 1) * dilation[axis]
        + 1
        - wanted[axis]
        for axis in range(axes)
    ]
    extra = [more + max(0, -total) for more, total in zip(extra, totals, strict=True)]
    totals = [max(0, total) for total in totals]
    small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return ([*small, *large] if automatic == "SAME_UPPER" else [*large, *small]), extra


def _cropped(
    operation: Operation, y: Symbol, begins: list[int], ends: list[int], bias: Symbol | None
) -> Symbol:
    """Cut the borders off, or add zeros where the output is longer than the kernel reaches."""
    order = [-length for axis in reversed(range(len(begins))) for length in (begins[axis], ends[axis])]
    if bias is not None and max(order) > 0:
        raise operation.refusal("pads its output beyond what the kernel reaches and adds a bias there")
    return operation.call(functional.pad, y, order)


def _filled(operation: Operation, layer: nn.Module, weight: Symbol, bias: Symbol | None, x: Symbol) -> Symbol:
    layer.weight = operation.builder.parameter(weight)
    if bias is not None:
        layer.bias = operation.builder.parameter(bias)
    return operation.layer(layer, [weight, bias], x)


def _spatial(operation: Operation, x: Symbol) -> int:
    if x.rank not in {3, 4, 5}:
        raise operation.refusal(f"convolves over {x.rank - 2} axes, and torch over one, two or three")
    return x.rank - 2


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
}
