"""What makes two requests the same: a digest of everything that the answer hangs on. Pure."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Final, NewType

import numpy as np

from flyweight.protos.tensors import Array, datatype_of

CacheKey = NewType("CacheKey", bytes)

# As long as SHA-256: a caller who could find two requests of one digest could plant an answer.
_DIGEST_BYTES: Final = 32


def key_of(
    instance: int,
    inputs: Mapping[str, Array],
    wanted: Collection[str],
    parameters: Collection[tuple[str, str]] = (),
) -> CacheKey:
    """Return the key of a request: BLAKE2b over its variant, its inputs and what it wants (RFC 7693).

    Args:
        instance: `LoadedVariant.instance`, which no other load shares: a reloaded variant starts afresh.
        inputs: arrays by name; their order does not count.
        wanted: the outputs that are asked for; their order does not count.
        parameters: whatever else the answer hangs on, as pairs of text (the classification of an output).
    """
    digest = hashlib.blake2b(instance.to_bytes(8, "little"), digest_size=_DIGEST_BYTES)

    def add(part: bytes) -> None:
        # Each part after its length, or two of them could pass for one.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    add(len(inputs).to_bytes(8, "little"))
    for name in sorted(inputs):
        array = inputs[name]
        add(name.encode())
        add(datatype_of(array).encode())
        add(repr(array.shape).encode())
        if array.dtype.hasobject:
            for element in array.ravel().tolist():
                add(element.encode() if isinstance(element, str) else bytes(element))
        else:
            contiguous = np.ascontiguousarray(array)
            digest.update(contiguous.nbytes.to_bytes(8, "little"))
            digest.update(contiguous.reshape(-1).view(np.uint8).data)
    add(b"".join(len(name.encode()).to_bytes(8, "little") + name.encode() for name in sorted(wanted)))
    for pair in sorted(parameters):
        for text in pair:
            add(text.encode())
    return CacheKey(digest.digest())
