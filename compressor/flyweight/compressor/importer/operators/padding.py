"""Padding, alone and as convolutions and pools ask for it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Number, Symbol

_MODES: Final = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


def torch_order(pads: Sequence[object]) -> list[object]:
    """Return ONNX's pads (all beginnings, then all ends) as torch's: last axis first, beginning and end."""
    half = len(pads) // 2
    return [pads[place] for axis in reversed(range(half)) for place in (axis, axis + half)]


class Window:
    """How a kernel slides over the spatial axes: of a convolution or a pool.

    Attributes:
        kernel: its lengths.
        stride: how far it moves.
        dilation: how far apart its elements are.
        pads: symmetric padding, one for each axis, for torch to do itself; zeros where `prepare` pads.
    """

    def __init__(self, operation: Operation, kernel: Sequence[int], *, pools: bool = False) -> None:
        axes = len(kernel)
        self.kernel = list(kernel)
        self.stride = operation.integers("strides", [1] * axes)
        self.dilation = operation.integers("dilations", [1] * axes)
        self._automatic = operation.text("auto_pad", "NOTSET")
        given = operation.integers("pads", [0] * 2 * axes)
        if self._automatic == "VALID":
            given = [0] * 2 * axes
        elif self._automatic in {"SAME_UPPER", "SAME_LOWER"}:
            given = self._same_for_stride_one()
        self.given = given
        symmetric = given[:axes] == given[axes:] and not self._depends_on_lengths
        # torch's pools refuse to pad by more than half the kernel.
        symmetric = symmetric and not (
            pools and any(2 * pad > size for pad, size in zip(given, kernel, strict=False))
        )
        self.pads = given[:axes] if symmetric else [0] * axes
        self._padded_before = not symmetric

    @property
    def padded_before(self) -> bool:
        """Whether `prepare` pads."""
        return self._padded_before

    @property
    def _depends_on_lengths(self) -> bool:
        same = self._automatic in {"SAME_UPPER", "SAME_LOWER"}
        return same and any(step != 1 for step in self.stride)

    def _same_for_stride_one(self) -> list[int]:
        totals = [(length - 1) * gap for length, gap in zip(self.kernel, self.dilation, strict=True)]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return [*small, *large] if self._automatic == "SAME_UPPER" else [*large, *small]

    def prepare(self, operation: Operation, x: Symbol, value: float = 0.0) -> Symbol:
        """Pad a tensor with `value` by what torch's layer cannot pad itself."""
        if self._depends_on_lengths:
            upper = self._automatic == "SAME_UPPER"
            return operation.call(pad_to_same, x, self.kernel, self.stride, self.dilation, upper, value)
        if not self._padded_before:
            return x
        return operation.call(functional.pad, x, torch_order(self.given), value=value)


def pad_to_same(  # one call in the module's code; a class would not trace
    x: Tensor,
    kernel: list[int],
    stride: list[int],
    dilation: list[int],
    upper: bool,  # noqa: FBT001  # positional in the traced call
    value: float,
) -> Tensor:
    """Pad so that a window with a stride gives ceil(length / stride) results.

    The total is max(0, (ceil(n / s) - 1) s + (k - 1) d + 1 - n); ONNX, Conv, `auto_pad`.
    """
    pads: list[int] = []
    lengths = x.shape[2:]
    for length, size, step, gap in reversed(list(zip(lengths, kernel, stride, dilation, strict=True))):
        results = (length + step - 1) // step
        total = longest(0, (results - 1) * step + (size - 1) * gap + 1 - length)
        small, large = total // 2, total - total // 2
        pads += [small, large] if upper else [large, small]
    return functional.pad(x, pads, value=value)


def longest(first: int, second: int) -> int:
    """Return the larger of two lengths, also where tracing keeps them as symbols."""
    found: int = torch.sym_max(first, second)  # type: ignore[no-untyped-call]  # torch annotates none of it
    return found


def _pad(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    mode = _MODES[operation.text("mode", "constant")]
    pads: list[object] = []
    value: Symbol | float = 0.0
    if operation.opset < 11:
        pads += operation.integers("pads", operation.integers("paddings", []))
        value = operation.real("value", 0.0)
    else:
        pads += operation.numbers(1).items
        if operation.has(2):
            value = operation.number(2)
        pads = _for_all_axes(operation, pads, x.rank)
    if mode == "constant":
        return operation.call(functional.pad, x, torch_order(pads), value=value)
    return _by_reflection(operation, x, pads, mode)


def _for_all_axes(operation: Operation, pads: list[object], rank: int) -> list[object]:
    axes = operation.axes(3, rank)
    if axes is None:
        return pads
    full: list[object] = [0 for _ in range(2 * rank)]
    for place, axis in enumerate(axes):
        full[axis], full[axis + rank] = pads[place], pads[place + len(axes)]
    return full


def _by_reflection(operation: Operation, x: Symbol, pads: list[object], mode: str) -> Outcome:
    """Pad the axes that are padded at all; torch itself only does so for the spatial ones."""
    known = [_value(pad) for pad in pads]
    padded = [axis for axis in range(x.rank) if known[axis] or known[axis + x.rank]]
    if not padded:
        return x
    spatial = x.rank - 2
    if 1 <= spatial <= 3 and min(padded) >= 2 and min(known) >= 0:
        inner = [pads[axis] for axis in range(2, x.rank)] + [pads[axis + x.rank] for axis in range(2, x.rank)]
        return operation.call(functional.pad, x, torch_order(inner), mode=mode)
    for axis in padded:
        before, after = pads[axis], pads[axis + x.rank]
        x = operation.call(pad_axis, x, axis, before, after, mode)
    return x


def pad_axis(x: Tensor, axis: int, before: int, after: int, mode: str) -> Tensor:
    """Pad one axis of any tensor by reading it at mirrored, repeated or wrapped places."""
    length = x.shape[axis]
    places = torch.arange(-before, length + after, device=x.device)
    if mode == "replicate":
        places = places.clamp(0, length - 1)
    elif mode == "circular":
        places = places % length
    else:
        period = 2 * (length - 1)
        places = places % period if period else places * 0
        places = torch.minimum(places, period - places)
    return x.index_select(axis, places)


def _value(pad: object) -> Number:
    return pad.number if isinstance(pad, Symbol) else int(str(pad))


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {"Pad": _pad}
