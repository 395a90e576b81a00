"""A bounded store of answers: what was not asked for longest goes first."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np

from flyweight.protos.tensors import Array
from flyweight.server.caching.keys import CacheKey

# One answer may take this share of the room: a few huge ones would push out everything else.
_LARGEST_SHARE: Final = 1 / 8

# What an entry takes besides its outputs' bytes: key, dictionary, array headers.
_ENTRY_BYTES: Final = 512
_OUTPUT_BYTES: Final = 256
_ELEMENT_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache did since it was made, and what it holds."""

    hits: int
    misses: int
    evictions: int
    entries: int
    held_bytes: int
    limit_bytes: int


class ResponseCache:
    """Answers by the key of their request, in at most `limit_bytes`; 0 keeps nothing. Thread-safe.

    What is given out is read-only and shared: it may be encoded by any number of callers at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[CacheKey, tuple[Mapping[str, Array], int]] = OrderedDict()
        self._held_bytes = 0
        self._hits = self._misses = self._evictions = 0

    @property
    def is_on(self) -> bool:
        """Tell whether it keeps anything."""
        return self._limit_bytes > 0

    def get(self, key: CacheKey) -> Mapping[str, Array] | None:
        """Return the outputs that were put under a key, by name; None when there are none."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
                return None
            self._hits += 1
            self._entries.move_to_end(key)
            return found[0]

    def put(self, key: CacheKey, outputs: Mapping[str, Array]) -> bool:
        """Keep a copy of outputs, unless they are too large; tell whether they are kept.

        What is not an answer (a failure) must not be put.
        """
        size = _ENTRY_BYTES + sum(_size_bytes(array) for array in outputs.values())
        if size > self._limit_bytes * _LARGEST_SHARE:
            return False
        # Copied outside of the lock: an output may be a view of a whole batch, which would stay with it.
        kept = MappingProxyType({name: _frozen(array) for name, array in outputs.items()})
        with self._lock:
            replaced = self._entries.pop(key, None)
            self._held_bytes += size - (replaced[1] if replaced is not None else 0)
            self._entries[key] = (kept, size)
            while self._held_bytes > self._limit_bytes:
                _, (_, dropped) = self._entries.popitem(last=False)
                self._held_bytes -= dropped
                self._evictions += 1
        return True

    def statistics(self) -> CacheStatistics:
        """Return the counts of this moment."""
        with self._lock:
            return CacheStatistics(
                hits=self._hits,
                misses=self._misses,
                evictions=self._evictions,
                entries=len(self._entries),
                held_bytes=self._held_bytes,
                limit_bytes=self._limit_bytes,
            )


def _frozen(array: Array) -> Array:
    copied = np.array(array, copy=True, order="C")
    copied.flags.writeable = False
    return copied


def _size_bytes(array: Array) -> int:
    if not array.dtype.hasobject:
        return _OUTPUT_BYTES + array.nbytes
    return _OUTPUT_BYTES + sum(_ELEMENT_BYTES + len(element) for element in array.ravel().tolist())
