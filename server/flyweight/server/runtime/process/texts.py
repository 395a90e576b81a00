"""String tensors between two processes: the length of every element, then all elements.

Not the protocol's form, in which each length stands before its element: two long pieces are joined and cut
without a step in Python for each length.
"""

from itertools import accumulate, pairwise
from typing import Final

import numpy as np

from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.seam import Array

_LENGTH: Final = np.dtype("<u8")


def join_texts(array: Array) -> Array:
    """Return an array of text or bytes as one flat array of bytes; text becomes UTF-8."""
    elements = [
        element.encode() if isinstance(element, str) else bytes(element)
        for element in array.reshape(-1).tolist()
    ]
    lengths = np.fromiter(map(len, elements), _LENGTH, len(elements))
    return np.frombuffer(lengths.tobytes() + b"".join(elements), np.uint8)


def split_texts(block: Array, shape: tuple[int, ...]) -> Array:
    """Return the array of `bytes` of `shape` that `join_texts` made into `block`.

    Raises:
        PacketFault: the lengths and the block do not fit together.
    """
    count = 1
    for length in shape:
        count *= length
    content = block.tobytes()
    start = count * _LENGTH.itemsize
    if start > len(content):
        raise PacketFault(f"a text tensor of shape {list(shape)} does not fit {len(content)} bytes")
    lengths = np.frombuffer(content, _LENGTH, count).tolist()
    ends = list(accumulate(lengths, initial=start))
    if ends[-1] != len(content):
        raise PacketFault(f"the lengths of a text tensor lead to {ends[-1]} in {len(content)} bytes")
    array = np.empty(count, dtype=object)
    array[:] = [content[begin:end] for begin, end in pairwise(ends)]
    return array.reshape(shape)
