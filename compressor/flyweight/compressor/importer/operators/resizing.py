"""Resizing of images and signals, in every mode of coordinates that ONNX has."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Symbol

_LINEAR: Final = {1: "linear", 2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Which axes change, to what.

    Attributes:
        axes: that change, in order.
        scales: one for each of them, or None where lengths are given.
        sizes: one for each of them, or None where scales are given.
    """

    axes: tuple[int, ...]
    scales: tuple[float, ...] | None
    sizes: tuple[Symbol, ...] | None


def _resize(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    mode, coordinates = operation.text("mode", "nearest"), _coordinates(operation)
    if (
        operation.integer("antialias", 0)
        or operation.text("keep_aspect_ratio_policy", "stretch") != "stretch"
    ):
        raise operation.refusal("resizes with antialiasing, or keeps the aspect ratio")
    wanted = _wanted(operation, x)
    if not wanted.axes:
        return x
    usual = wanted.axes == tuple(range(2, x.rank)) and 1 <= len(wanted.axes) <= 3
    known = _torch_mode(operation, mode, coordinates, len(wanted.axes)) if usual else None
    if known is not None:
        size = None if wanted.sizes is None else list(wanted.sizes)
        scale = None if wanted.scales is None else list(wanted.scales)
        if not (wanted.scales and _unlike_torch(x, wanted)):
            return operation.call(functional.interpolate, x, size=size, scale_factor=scale, **known)
    if mode not in {"nearest", "linear"} or coordinates == "tf_crop_and_resize":
        raise operation.refusal(f"resizes by {mode} interpolation with {coordinates} coordinates")
    rounding = operation.text("nearest_mode", "round_prefer_floor") if operation.opset >= 11 else "floor"
    for place, axis in enumerate(wanted.axes):
        scale_or_none = wanted.scales[place] if wanted.scales else None
        size_or_none = wanted.sizes[place] if wanted.sizes else None
        kind = rounding if mode == "nearest" else "linear"
        x = operation.call(resample, x, axis, scale_or_none, size_or_none, coordinates, kind)
    return x


def _coordinates(operation: Operation) -> str:
    usual = "half_pixel" if operation.opset >= 11 else "asymmetric"
    return operation.text("coordinate_transformation_mode", usual)


def _torch_mode(operation: Operation, mode: str, coordinates: str, axes: int) -> dict[str, object] | None:
    """Return how torch calls a way of resizing, or None where it has no equal."""
    if mode == "nearest":
        floor = operation.opset < 11 or operation.text("nearest_mode", "round_prefer_floor") == "floor"
        return {"mode": "nearest"} if coordinates == "asymmetric" and floor else None
    if mode == "cubic" and (axes != 2 or abs(operation.real("cubic_coeff_a", -0.75) + 0.75) > 1e-6):
        return None
    if operation.integer("exclude_outside", 0) or coordinates not in {"half_pixel", "align_corners"}:
        return None
    name = "bicubic" if mode == "cubic" else _LINEAR[axes]
    return {"mode": name, "align_corners": coordinates == "align_corners"}


def _unlike_torch(x: Symbol, wanted: _Wanted) -> bool:
    """Return whether a scale does not give a whole length: ONNX and torch then compute coordinates apart."""
    assert wanted.scales is not None
    lengths = (x.tensor.shape[axis] for axis in wanted.axes)
    return any(
        not float(length * scale).is_integer() for length, scale in zip(lengths, wanted.scales, strict=True)
    )


def _wanted(operation: Operation, x: Symbol) -> _Wanted:
    if operation.node.op_type == "Upsample" or operation.opset < 11:
        scales: Sequence[float] = (
            list(operation.attributes["scales"].floats)
            if not operation.has(1)
            else (operation.constant(1).tolist())
        )
        return _by_scales(list(range(x.rank)), scales)
    axes = [axis % x.rank for axis in operation.integers("axes", list(range(x.rank)))]
    if operation.has(3):
        sizes = operation.numbers(3).items
        lengths = [x.tensor.shape[axis] for axis in axes]
        changed = [
            place for place, size in enumerate(sizes) if size.number != lengths[place] or axes[place] >= 2
        ]
        return _Wanted(
            tuple(axes[place] for place in changed), None, tuple(sizes[place] for place in changed)
        )
    return _by_scales(axes, operation.constant(2).tolist())


def _by_scales(axes: Sequence[int], scales: Sequence[float]) -> _Wanted:
    changed = [place for place, scale in enumerate(scales) if scale != 1.0 or axes[place] >= 2]
    return _Wanted(tuple(axes[place] for place in changed), tuple(scales[place] for place in changed), None)


def resample(  # one call in the imported module's code
    x: Tensor, axis: int, scale: float | None, size: int | None, coordinates: str, kind: str
) -> Tensor:
    """Resize one axis; ONNX, Resize, `coordinate_transformation_mode` and `nearest_mode`."""
    old = x.shape[axis]
    new = int(old * scale) if scale is not None else size
    assert new is not None, "either a scale or a length is given"
    places = _places(torch.arange(new, dtype=torch.float32), old, new, scale or new / old, coordinates)
    if kind != "linear":
        return x.index_select(axis, _rounded(places, kind).to(torch.int64).clamp(0, old - 1))
    places = places.clamp(0, old - 1)
    low = places.floor()
    share = (places - low).reshape([-1 if place == axis else 1 for place in range(x.ndim)])
    first = low.to(torch.int64)
    second = (first + 1).clamp(max=old - 1)
    return x.index_select(axis, first) * (1 - share) + x.index_select(axis, second) * share


def _places(out: Tensor, old: int, new: int, scale: float, coordinates: str) -> Tensor:
    if coordinates == "asymmetric":
        return out / scale
    if coordinates == "align_corners":
        return out * ((old - 1) / (new - 1)) if new > 1 else out * 0
    if coordinates == "pytorch_half_pixel" and new <= 1:
        return out * 0
    if coordinates == "half_pixel_symmetric":
        centre = old / 2 * (1 - new / (scale * old))
        return centre + (out + 0.5) / scale - 0.5
    return (out + 0.5) / scale - 0.5


def _rounded(places: Tensor, kind: str) -> Tensor:
    match kind:
        case "floor":
            return places.floor()
        case "ceil":
            return places.ceil()
        case "round_prefer_ceil":
            return (places + 0.5).floor()
        case _:
            return (places - 0.5).ceil()


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {"Resize": _resize, "Upsample": _resize}
