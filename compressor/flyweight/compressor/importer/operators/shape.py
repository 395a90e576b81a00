"""Operators that move elements and keep their values: reshape, transpose, slice, join, repeat."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.values import Numbers, Symbol, constant

# ONNX writes "to the end" as the largest integer of 32 or 64 bits.
_END: Final = 2**31 - 1


def _shape(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    start, end = operation.integer("start", 0), operation.integer("end", x.rank)
    axes = range(x.rank)[start:end]
    return Numbers(tuple(operation.builder.size(x, axis) for axis in axes), has_axis=True, dtype=torch.int64)


def _size(operation: Operation) -> Outcome:
    elements = operation.builder.method("numel", operation.tensor(0))
    return Numbers((elements,), has_axis=False, dtype=torch.int64)


def _reshape(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    if operation.opset < 5:
        wanted: list[Symbol] = [constant(length) for length in operation.integers("shape", [])]
    else:
        wanted = list(operation.numbers(1).items)
    if not operation.integer("allowzero", 0):
        wanted = [
            operation.builder.size(x, axis) if item.is_constant and item.number == 0 else item
            for axis, item in enumerate(wanted)
        ]
    if x.is_constant:
        return operation.call(torch.reshape, x, wanted)
    wanted = _free_of_batch(operation, x, wanted)
    if len(wanted) == 2 and x.rank >= 2 and wanted[0].node is not None and _is_length(wanted[0], x):
        kept = math.prod(x.tensor.shape[1:])
        if wanted[1].is_constant and wanted[1].number in {-1, kept}:
            # Right for any number of channels, also after some were pruned.
            return operation.call(torch.flatten, x, 1)
    return operation.call(torch.reshape, x, _free_of_width(wanted))


def _is_length(item: Symbol, x: Symbol) -> bool:
    """Return whether a number is the length of x's first axis: read from x, or equal on the sample."""
    return item.known == x.tensor.shape[0]


def _free_of_batch(operation: Operation, x: Symbol, wanted: list[Symbol]) -> list[Symbol]:
    """Return the shape with the batch's length read from x where the graph has it as a literal.

    A literal equal to the length of the first axis is that length. A first -1 is, where all other lengths of
    x are fixed by the graph and are all there is in the rest of the shape.
    """
    if not wanted or not x.rank or not wanted[0].is_constant:
        return wanted
    first, batch = int(wanted[0].number), int(x.tensor.shape[0])
    if first == batch:
        return [operation.builder.size(x, 0), *wanted[1:]]
    rest = [item.number for item in wanted[1:]]
    fixed = operation.fixed_lengths(0)
    if first == -1 and fixed is not None and all(item.is_constant for item in wanted[1:]):
        lengths = fixed[1:]
        if None not in lengths and math.prod(rest) == math.prod(length or 0 for length in lengths):
            return [operation.builder.size(x, 0), *wanted[1:]]
    return wanted


def _free_of_width(wanted: list[Symbol]) -> list[Symbol]:
    """Return the shape with its first literal after the batch as -1, so that a narrower tensor fits too."""
    known = [item.number for item in wanted]
    literal = [place for place, item in enumerate(wanted) if place and item.is_constant]
    if -1 in known or not literal or 0 in known:
        return wanted
    place = literal[0]
    return [*wanted[:place], constant(-1), *wanted[place + 1 :]]


def _flatten(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    axis = operation.integer("axis", 1)
    axis = axis + x.rank if axis < 0 else axis
    if axis == 0:
        return operation.call(torch.reshape, x, [1, -1])
    if axis == x.rank:
        return operation.call(torch.reshape, x, [-1, 1])
    flat = operation.call(torch.flatten, x, axis)
    return flat if axis == 1 else operation.call(torch.flatten, flat, 0, axis - 1)


def _transpose(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    return operation.call(torch.permute, x, operation.integers("perm", list(reversed(range(x.rank)))))


def _squeeze(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    axes = operation.axes(1, x.rank)
    if axes is None:
        axes = [axis for axis, length in enumerate(x.tensor.shape) if length == 1]
    for axis in sorted(axes, reverse=True):
        x = operation.call(torch.squeeze, x, axis)
    return x


def _unsqueeze(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    given = operation.constant(1).reshape(-1).tolist() if operation.has(1) else operation.integers("axes", [])
    rank = x.rank + len(given)
    for axis in sorted(axis % rank for axis in given):
        x = operation.call(torch.unsqueeze, x, axis)
    return x


def _concat(operation: Operation) -> Outcome:
    tensors = [operation.tensor(index) for index in range(len(operation.inputs))]
    return operation.call(torch.cat, tensors, operation.integer("axis", 1))


def _split(operation: Operation) -> Outcome:
    """Split evenly by the number of parts, so that a narrower tensor splits too; else by lengths."""
    x, axis, parts = operation.tensor(0), operation.integer("axis", 0), len(operation.node.output)
    sizes: Sequence[object] = operation.integers("split", [])
    if operation.has(1):
        sizes = operation.numbers(1).items
    known = [size.number if isinstance(size, Symbol) else size for size in sizes]
    if len(set(known)) <= 1:
        several = operation.call(torch.chunk, x, parts, axis)
    else:
        several = operation.call(torch.split, x, list(sizes), axis)
    return [operation.builder.part(several, place) for place in range(parts)]


def _slice(operation: Operation) -> Outcome:
    x = operation.tensor(0)
    if operation.opset < 10:
        starts: list[object] = list(operation.integers("starts", []))
        ends: list[object] = list(operation.integers("ends", []))
        axes = operation.integers("axes", list(range(len(starts))))
        steps = [1] * len(starts)
    else:
        starts, ends = list(operation.numbers(1).items), list(operation.numbers(2).items)
        axes = (
            [int(axis) for axis in operation.numbers(3).known]
            if operation.has(3)
            else list(range(len(starts)))
        )
        steps = [int(step) for step in operation.numbers(4).known] if operation.has(4) else [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = operation.call(cut, x, axis % x.rank, start, end, step)
    return x


def cut(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """Return x[start:end:step] along an axis, as Python slices; torch knows only steps forward."""
    if step < 0:
        length = x.shape[axis]
        last = length - 1
        begin = last - shortest(start if start >= 0 else start + length, last)
        stop = length if end < -length else last - (end if end >= 0 else end + length)
        return cut(x.flip(axis), axis, begin, stop, -step)
    place = slice(start, None if _reaches_the_end(end) else end, step)
    return x[(*[slice(None)] * axis, place)]


def shortest(first: int, second: int) -> int:
    """Return the smaller of two lengths, also where tracing keeps them as symbols."""
    found: int = torch.sym_min(first, second)  # type: ignore[no-untyped-call]  # torch annotates none of it
    return found


def _reaches_the_end(end: int) -> bool:
    return isinstance(end, int) and end >= _END


def _expand(operation: Operation) -> Outcome:
    x, wanted = operation.tensor(0), list(operation.numbers(1).items)
    lengths: list[Symbol | int] = [-1] * (x.rank - len(wanted))
    missing = len(wanted) - x.rank
    for axis, item in enumerate(wanted):
        # One in ONNX's shape keeps a longer axis; -1 says so in torch's.
        keep = item.is_constant and item.number == 1 and axis >= missing
        lengths.append(-1 if keep else item)
    known = [length.number if isinstance(length, Symbol) else length for length in lengths]
    after = known[max(missing, 0) :]
    for axis, (length, old) in enumerate(zip(after, x.tensor.shape, strict=True)):
        if length == 1 and old != 1:
            lengths[max(missing, 0) + axis] = -1
    return operation.builder.method("expand", x, lengths)


def _tile(operation: Operation) -> Outcome:
    return operation.builder.method("repeat", operation.tensor(0), list(operation.numbers(1).items))


def _depth_to_space(operation: Operation) -> Outcome:
    x, block = operation.tensor(0), operation.integer("blocksize", 1)
    if operation.text("mode", "DCR") == "CRD":
        return operation.call(functional.pixel_shuffle, x, block)
    return operation.call(depth_to_space, x, block)


def depth_to_space(x: Tensor, block: int) -> Tensor:
    """Move channels into the plane, the block's place being the slower part of the channel's number."""
    rows, channels, height, width = x.shape
    split = x.reshape(rows, block, block, channels // block**2, height, width)
    return split.permute(0, 3, 4, 1, 5, 2).reshape(rows, channels // block**2, height * block, width * block)


def _space_to_depth(operation: Operation) -> Outcome:
    if operation.text("mode", "DCR") == "CRD":
        return operation.call(
            functional.pixel_unshuffle, operation.tensor(0), operation.integer("blocksize", 1)
        )
    return operation.call(space_to_depth, operation.tensor(0), operation.integer("blocksize", 1))


def space_to_depth(x: Tensor, block: int) -> Tensor:
    """Move the plane into channels, the block's place being the slower part of the channel's number."""
    rows, channels, height, width = x.shape
    split = x.reshape(rows, channels, height // block, block, width // block, block)
    return split.permute(0, 3, 5, 1, 2, 4).reshape(rows, channels * block**2, height // block, width // block)


def _reverse_sequence(operation: Operation) -> Outcome:
    x, lengths = operation.tensor(0), operation.tensor(1)
    time, batch = operation.integer("time_axis", 0), operation.integer("batch_axis", 1)
    return operation.call(reverse_sequence, x, lengths, time, batch)


def reverse_sequence(x: Tensor, lengths: Tensor, time: int, batch: int) -> Tensor:
    """Return x with the first `lengths[i]` steps of row i in reverse order, the others where they are."""
    steps = torch.arange(x.shape[time], device=x.device).unsqueeze(1)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    moved = x.movedim((time, batch), (0, 1))
    index = places.reshape(*places.shape, *([1] * (x.ndim - 2))).expand_as(moved)
    return moved.gather(0, index).movedim((0, 1), (time, batch))


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "ReverseSequence": _reverse_sequence,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
