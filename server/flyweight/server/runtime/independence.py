"""Whether the rows of a batch mind each other: seen by running two rows alone and together.

Requests of different callers may share a run only if nobody can tell from an answer who else was in it.
Models that quantize their activations dynamically take one scale from the whole batch; others normalise or
sum over the first axis, or their first axis is not a batch at all.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from flyweight.protos.errors import TensorError
from flyweight.protos.tensors import BFLOAT16, DATATYPES
from flyweight.protos.tensors.bfloat16 import as_sent, widen_bfloat16
from flyweight.server.errors import InvalidRequest, RunFailed
from flyweight.server.runtime.seam import Array, Runtime, Signature, TensorSpec
from flyweight.server.runtime.signature import FREE

# Whole numbers are often indices and masks, of which 0 and 1 are the safe ones; words tell more if they are
# of different kinds, and a model that has fewer of them refuses.
_WHOLE: Final = (1, 127)

# Pairs that are looked at: the golden one, and two kinds of whole numbers.
_ENOUGH: Final = 3

# Of the largest magnitude in the output: a batch of two may take another kernel, which adds in another order.
_TOLERANCE: Final = 1e-5
# Half precision has three digits, bfloat16 two.
_HALF_TOLERANCE: Final = 2e-3
_BFLOAT16_TOLERANCE: Final = 1e-2

# Three runs a pair are made; a model slower than this gains little from company and would hold up the load.
_LONGEST_RUN_SECONDS: Final = 1.0

# Lengths that are tried for free axes besides the batch: sequences take any, images want some size.
_LENGTHS: Final = (8, 1, 64, 224)
# A model with several free axes would be tried with their product.
_MOST_ELEMENTS: Final = 4 << 20

Rows = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether requests may share a run, and the reason in words that follow "because"."""

    independent: bool
    reason: str


def measure_independence(
    runtime: Runtime,
    signature: Signature,
    golden: Rows | None = None,
    monotonic: Callable[[], float] = time.monotonic,
) -> Verdict:
    """Return whether the rows of a batch leave each other alone.

    Args:
        runtime: the model, as requests will run it.
        signature: what requests are checked against.
        golden: inputs the model is known to take; used when they hold two rows.
        monotonic: the clock.
    """
    if signature.max_batch_rows < 2:
        return Verdict(independent=False, reason="its runs have no room for two rows")
    seen = 0
    for pair in _pairs(signature, golden):
        try:
            reason = _compare(runtime, signature, pair, monotonic)
        except (InvalidRequest, RunFailed, TensorError):
            # Not what this model takes; the next pair may be.
            continue
        if reason:
            return Verdict(independent=False, reason=reason)
        seen += 1
        if seen == _ENOUGH:
            break
    if not seen:
        return Verdict(independent=False, reason="no two rows could be made that it takes")
    return Verdict(independent=True, reason="two rows gave the same answers alone and together")


def _pairs(signature: Signature, golden: Rows | None) -> Iterable[tuple[Rows, Rows]]:
    """Yield pairs of single rows: of the golden samples first, then made up, as different as may be."""
    if golden is not None and golden and all(len(array) >= 2 for array in golden.values() if array.ndim):
        yield {k: v[:1] for k, v in golden.items()}, {k: v[1:2] for k, v in golden.items()}
    specs = [spec for spec in signature.inputs if not spec.optional]
    is_free = any(FREE in spec.shape[1:] for spec in specs)
    for length in _LENGTHS if is_free else _LENGTHS[:1]:
        if any(math.prod(_lengths(spec, length)) > _MOST_ELEMENTS for spec in specs):
            continue
        for most in _WHOLE if any(DATATYPES[spec.datatype].kind in "iu" for spec in specs) else _WHOLE[:1]:
            random = np.random.default_rng(length)
            first = {spec.name: _row(spec, length, random, most, is_first=True) for spec in specs}
            second = {spec.name: _row(spec, length, random, most, is_first=False) for spec in specs}
            yield first, second


def _lengths(spec: TensorSpec, length: int) -> tuple[int, ...]:
    return (1, *(length if axis == FREE else axis for axis in spec.shape[1:]))


def _row(spec: TensorSpec, length: int, random: np.random.Generator, most: int, *, is_first: bool) -> Array:
    shape = _lengths(spec, length)
    if spec.datatype == "BYTES":
        return np.full(shape, b"1" if is_first else b"2", dtype=object)
    dtype = DATATYPES[spec.datatype]
    if dtype.kind == "f":
        # The second ten times as large: a scale taken from both rows then has little left for the first.
        values = (random.standard_normal(shape) * (1.0 if is_first else 10.0)).astype(dtype)
        return as_sent(values, spec.datatype)
    if most > 1 and dtype.kind != "b":
        return random.integers(0, most + 1, shape).astype(dtype)
    if is_first:
        return np.ones(shape, dtype=dtype)
    mixed = random.integers(0, 2, shape).astype(dtype)
    # The answer to a mask of nothing is often no number, which tells nothing of its row.
    mixed.flat[:2] = (1, 0)[-mixed.size :] if mixed.size else ()
    return mixed


def _compare(
    runtime: Runtime, signature: Signature, pair: tuple[Rows, Rows], monotonic: Callable[[], float]
) -> str:
    """Return in what two rows differ when they are run together, or nothing."""
    names = [spec.name for spec in signature.outputs]
    signature.check(pair[0])
    began = monotonic()
    alone = [runtime.run(pair[0], names).outputs]
    if monotonic() - began > _LONGEST_RUN_SECONDS:
        return f"one run takes more than {_LONGEST_RUN_SECONDS:g} s, and several would have to be made"
    alone.append(runtime.run(pair[1], names).outputs)
    both = {name: np.concatenate([pair[0][name], pair[1][name]]) for name in pair[0]}
    try:
        together = runtime.run(both, names).outputs
    except (InvalidRequest, RunFailed):
        return "it takes one row and refuses two"
    for name in names:
        array = together[name]
        for row in alone:
            if row[name].ndim == 0 or len(row[name]) != 1:
                return f"the output {name!r} does not have one row for one row of input"
        if array.ndim == 0 or len(array) != 2:
            return f"the output {name!r} does not have two rows for two rows of input"
        for index, row in enumerate(alone):
            difference = _difference(row[name][0], array[index])
            if difference:
                return f"the output {name!r} of a row changes with the other row in its batch ({difference})"
    return ""


def _difference(alone: Array, together: Array) -> str:
    alone, together = np.asarray(alone), np.asarray(together)
    if alone.shape != together.shape:
        return f"its shape is {list(alone.shape)} alone and {list(together.shape)} together"
    is_bfloat16 = alone.dtype == BFLOAT16
    if is_bfloat16:
        alone, together = widen_bfloat16(alone), widen_bfloat16(together)
    if alone.dtype.kind != "f":
        return "" if np.array_equal(alone, together) else "it is another value"
    if not alone.size:
        return ""
    is_half = alone.dtype.itemsize == 2
    tolerance = _BFLOAT16_TOLERANCE if is_bfloat16 else _HALF_TOLERANCE if is_half else _TOLERANCE
    a, b = alone.astype(np.float64), together.astype(np.float64)
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return "it is a number alone and none together, or the other way round"
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if not a.size:
        return ""
    largest, apart = float(np.abs(a).max()), float(np.abs(a - b).max())
    return "" if apart <= tolerance * largest else f"by {apart / max(largest, 1e-300):.2g} of its magnitude"
