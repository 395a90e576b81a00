"""What a packet's tensors are called and where they lie, in bytes that both ends keep the meaning of.

    wanted count u16, tensor count u16
    for each wanted output: name
    for each tensor: name, code u8, axes u8, bytes u64, lengths i64

A name is its length in bytes (u16) and itself in UTF-8. Everything is little-endian. The tensors follow the
layout in this order, each at a multiple of 64 bytes. The layouts of a client repeat, so each end makes or
reads one once and then finds it by what it is made of.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct, error
from typing import Any, Final

import numpy as np

from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.seam import Array
from flyweight.server.runtime.signature import BFLOAT16

# The length of a cache line, and of the widest vector register: no tensor starts where loads are split.
ALIGNMENT: Final = 64

_COUNTS: Final = Struct("<HH")
_NAME: Final = Struct("<H")
_TENSOR: Final = Struct("<BBQ")

# What a code means; text travels as a block of bytes (texts.py).
_TEXT: Final = 0
_DTYPES: Final[tuple[np.dtype[Any], ...]] = (
    *map(np.dtype, ("O", "?", "<u1", "<u2", "<u4", "<u8", "<i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8")),
    BFLOAT16,
)
_CODES: Final = {dtype: code for code, dtype in enumerate(_DTYPES)}

# A server has few clients that differ, and few batch sizes; a model with free lengths can have any number.
_MOST_KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a packet: `offset` is from the first tensor's first byte; text has `is_text`."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int
    size_bytes: int
    is_text: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """What a packet holds; `encoded` says it in bytes. `payload_bytes` is where the last tensor ends."""

    encoded: bytes
    wanted: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    payload_bytes: int


class Layouts:
    """The layouts one end of a lane has met, by what they are made of. Used by one thread at a time."""

    def __init__(self, head_bytes: int) -> None:
        self._head_bytes = head_bytes
        self._made: dict[tuple[object, ...], Layout] = {}
        self._read: dict[bytes, Layout] = {}

    def of_arrays(self, arrays: Mapping[str, Array], wanted: tuple[str, ...]) -> Layout:
        """Return the layout of arrays of numbers, which are contiguous and of a dtype that has a code."""
        key = (wanted, *[(name, array.dtype, array.shape) for name, array in arrays.items()])
        layout = self._made.get(key)
        if layout is None:
            layout = self._make(arrays, {}, wanted)
            _keep(self._made, key, layout)
        return layout

    def with_texts(
        self, arrays: Mapping[str, Array], shapes: Mapping[str, tuple[int, ...]], wanted: tuple[str, ...]
    ) -> Layout:
        """Return the layout of arrays of which those in `shapes` are blocks of text; it is not kept."""
        return self._make(arrays, shapes, wanted)

    def read(self, encoded: bytes) -> Layout:
        """Return what a layout's bytes mean.

        Raises:
            PacketFault: they mean nothing.
        """
        layout = self._read.get(encoded)
        if layout is None:
            layout = read_layout(encoded)
            _keep(self._read, encoded, layout)
        return layout

    def _make(
        self, arrays: Mapping[str, Array], texts: Mapping[str, tuple[int, ...]], wanted: tuple[str, ...]
    ) -> Layout:
        parts = [_COUNTS.pack(len(wanted), len(arrays)), *map(_encode_name, wanted)]
        for name, array in arrays.items():
            shape = texts.get(name, array.shape)
            code = _TEXT if name in texts else _CODES[array.dtype]
            parts += [_encode_name(name), _TENSOR.pack(code, len(shape), array.nbytes)]
            parts.append(Struct(f"<{len(shape)}q").pack(*shape))
        encoded = b"".join(parts)
        # So that the tensors, which come next, start at a multiple too.
        encoded += bytes(-(self._head_bytes + len(encoded)) % ALIGNMENT)
        return read_layout(encoded)


def has_code(dtype: np.dtype[Any]) -> bool:
    """Tell whether arrays of this type travel as they are: numbers, little-endian."""
    return dtype in _CODES and not dtype.hasobject


def read_layout(encoded: bytes) -> Layout:
    """Return what a layout's bytes mean.

    Raises:
        PacketFault: they are cut short, or a size, shape and type do not fit together.
    """
    try:
        wanted_count, tensor_count = _COUNTS.unpack_from(encoded)
        position = _COUNTS.size
        wanted = []
        for _ in range(wanted_count):
            name, position = _read_name(encoded, position)
            wanted.append(name)
        tensors: list[Tensor] = []
        end = 0
        for _ in range(tensor_count):
            tensor, position = _read_tensor(encoded, position, end + -end % ALIGNMENT)
            tensors.append(tensor)
            end = tensor.offset + tensor.size_bytes
    except (error, UnicodeDecodeError, IndexError) as fault:
        raise PacketFault(f"a layout cannot be read: {fault}") from fault
    return Layout(encoded, tuple(wanted), tuple(tensors), end)


def _encode_name(name: str) -> bytes:
    encoded = name.encode()
    return _NAME.pack(len(encoded)) + encoded


def _read_name(encoded: bytes, position: int) -> tuple[str, int]:
    (length,) = _NAME.unpack_from(encoded, position)
    start = position + _NAME.size
    if start + length > len(encoded):
        raise PacketFault("a name in a layout is longer than the layout")
    return encoded[start : start + length].decode(), start + length


def _read_tensor(encoded: bytes, position: int, offset: int) -> tuple[Tensor, int]:
    name, position = _read_name(encoded, position)
    code, axes, size_bytes = _TENSOR.unpack_from(encoded, position)
    lengths = Struct(f"<{axes}q")
    position += _TENSOR.size
    shape: tuple[int, ...] = lengths.unpack_from(encoded, position)
    dtype, is_text = _DTYPES[code], code == _TEXT
    count = 1
    for length in shape:
        if length < 0:
            raise PacketFault(f"the tensor {name!r} has the shape {list(shape)}")
        count *= length
    if not is_text and count * dtype.itemsize != size_bytes:
        raise PacketFault(f"the tensor {name!r} of shape {list(shape)} has {size_bytes} bytes")
    return Tensor(name, dtype, shape, offset, size_bytes, is_text), position + lengths.size


def _keep(kept: dict[Any, Layout], key: object, layout: Layout) -> None:
    if len(kept) >= _MOST_KEPT:
        kept.clear()
    kept[key] = layout
