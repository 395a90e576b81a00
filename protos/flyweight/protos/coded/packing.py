"""General-purpose compression of what is not weights: the shorter of zlib and LZMA, or nothing.

Unpacking is bounded: a decompressor is asked for the declared length and not a byte more.
"""

import zlib
from enum import IntEnum
from typing import Any, Final

from flyweight.protos.coded.errors import CodedError


class Packing(IntEnum):
    """How bytes are packed; the number is written into files."""

    NONE = 0
    ZLIB = 1
    LZMA = 2


# The dictionary is the decompressor's memory, and descriptions of graphs are short.
_DICTIONARY_BYTES: Final = 1 << 20
_RAW_DEFLATE: Final = -15


def pack(content: bytes) -> tuple[Packing, bytes]:
    """Return `content` in its shortest packing."""
    deflate = zlib.compressobj(9, zlib.DEFLATED, _RAW_DEFLATE)
    packed = {
        Packing.NONE: content,
        Packing.ZLIB: deflate.compress(content) + deflate.flush(),
        Packing.LZMA: _lzma().compress(content, format=_lzma().FORMAT_RAW, filters=_filters()),
    }
    return min(packed.items(), key=lambda item: len(item[1]))


def unpack(packing: int, packed: bytes, length: int) -> bytes:
    """Return the `length` bytes that were packed.

    Raises:
        CodedError: the packing is unknown, or the bytes are garbled or unpack to another length.
    """
    if packing == Packing.NONE:
        content = packed
    elif packing == Packing.ZLIB:
        content = _inflate(packed, length)
    elif packing == Packing.LZMA:
        content = _unpack_lzma(packed, length)
    else:
        raise CodedError(f"it is packed in way {packing}, which this flyweight does not know")
    if len(content) != length:
        raise CodedError("a section does not unpack to its length")
    return content


def _inflate(packed: bytes, length: int) -> bytes:
    inflate = zlib.decompressobj(_RAW_DEFLATE)
    try:
        # A length of 0 means no limit to zlib.
        content = inflate.decompress(packed, length + 1)
    except zlib.error as error:
        raise CodedError("a section cannot be unpacked") from error
    return content


def _unpack_lzma(packed: bytes, length: int) -> bytes:
    lzma = _lzma()
    decompressor = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_filters())
    try:
        content: bytes = decompressor.decompress(packed, length + 1)
    except (lzma.LZMAError, EOFError) as error:
        raise CodedError("a section cannot be unpacked") from error
    return content


def _filters() -> list[dict[str, int]]:
    lzma = _lzma()
    return [
        {"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": _DICTIONARY_BYTES, "lc": 3}
    ]


def _lzma() -> Any:
    """Return the module; some builds of Python come without it."""
    try:
        import lzma
    except ImportError as error:
        raise CodedError("this Python was built without the module lzma") from error
    return lzma
