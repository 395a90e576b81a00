"""Shapes as they come over the wire, where nothing about them can be trusted."""

import math
from typing import Final

from flyweight.protos.errors import TensorError

# The most that every numpy can hold; also keeps the product of a hostile shape's lengths cheap to compute.
MOST_AXES: Final = 32


def count_elements(name: str, shape: tuple[int, ...]) -> int:
    """Return how many elements a tensor of this shape has; 1 for a scalar, whose shape is empty.

    Raises:
        TensorError: a length is negative, or there are too many axes.
    """
    if len(shape) > MOST_AXES:
        raise TensorError(
            f"Tensor {name!r} has {len(shape)} axes, and {MOST_AXES} are the most there can be."
        )
    if shape and min(shape) < 0:
        raise TensorError(
            f"Tensor {name!r} has shape {list(shape)}, and a tensor that is sent has no negative lengths."
        )
    return math.prod(shape)


def impossible_shape(name: str, shape: tuple[int, ...]) -> TensorError:
    """Return the error for an empty tensor whose other axes are too long for any array."""
    return TensorError(f"Tensor {name!r} has shape {list(shape)}, which is too large for an array.")
