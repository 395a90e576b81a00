"""The classification extension: the largest entries of an output, each with its index and label.

Source: Triton's classification extension. An element of the answer is "<value>:<index>[:<label>]"; values are
written as in its examples, with as many digits as it takes to read the same number back.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from flyweight.protos.tensors import BFLOAT16, Array
from flyweight.protos.tensors.bfloat16 import widen_bfloat16
from flyweight.server.errors import InvalidRequest

# As Triton: more than any model's classes, and sorting them takes a tenth of a second.
MOST_ELEMENTS: Final = 1_000_000


def classify(
    name: str, array: Array, count: int, labels: Sequence[str] = (), *, has_batch_axis: bool = True
) -> Array:
    """Return the `count` largest entries of each row as text, largest first.

    Args:
        name: the output's name, for sentences.
        array: of shape (rows, ...), or any without a batch axis; the other axes count as one.
        count: how many are wanted, at least 1; more than there are means all.
        labels: by index, perhaps fewer than there are entries.
        has_batch_axis: whether the first axis is one.

    Returns:
        BYTES of shape (rows, count), or (count,) without a batch axis. Of equal entries the one with the
        smaller index comes first; what is not a number comes last.

    Raises:
        InvalidRequest: the output is not of numbers, or too large.
    """
    if array.dtype == BFLOAT16:
        array = widen_bfloat16(array)
    if array.dtype.kind not in "iuf":
        raise InvalidRequest(
            f"The output {name!r} cannot be classified: it is not of numbers; ask for it without "
            "the parameter 'classification'."
        )
    if array.size > MOST_ELEMENTS:
        raise InvalidRequest(
            f"The output {name!r} has {array.size} entries, and of {MOST_ELEMENTS} at most the largest are "
            "looked for; ask for it without the parameter 'classification'."
        )
    if has_batch_axis and array.ndim:
        rows = array.reshape(array.shape[0], math.prod(array.shape[1:]))
        found = np.empty((rows.shape[0], min(count, rows.shape[1])), dtype=np.object_)
        for index, row in enumerate(rows):
            found[index] = _largest(row, count, labels)
        return found
    flat = _largest(array.ravel(), count, labels)
    return np.array([*flat, None], dtype=np.object_)[:-1]


def _largest(row: Array, count: int, labels: Sequence[str]) -> list[bytes]:
    values = np.where(np.isnan(row), -np.inf, row) if row.dtype.kind == "f" else row
    # Sorted backwards and turned round: stable, so that of equal entries the first stays first.
    order = (row.size - 1 - np.argsort(values[::-1], kind="stable"))[::-1][:count]
    return [_element(row[index], int(index), labels) for index in order]


def _element(value: object, index: int, labels: Sequence[str]) -> bytes:
    # str, as formatting would make a double of a float32 first, and show its digits.
    words = f"{value!s}:{index}"
    # An empty line in a file of labels is no label.
    label = labels[index] if index < len(labels) else ""
    return (f"{words}:{label}" if label else words).encode()
