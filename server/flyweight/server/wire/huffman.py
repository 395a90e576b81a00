"""The Huffman code of header strings (RFC 7541, section 5.2 and appendix B), read eight bits at a time."""

from functools import cache
from typing import Final

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

# The code's last symbol, which no string may have in it (section 5.2).
_EOS: Final = 256
# Section 5.2: a string ends with at most seven bits of padding, all ones.
_MOST_PADDING_BITS: Final = 7


class HuffmanFault(ValueError):  # noqa: N818 - as the faults that it becomes
    """Bits that are no Huffman code of a string."""


class _Node:
    """A place in the code's tree: between two bits of a symbol."""

    __slots__ = ("depth", "is_ones", "next")

    def __init__(self, depth: int, *, is_ones: bool) -> None:
        self.depth = depth
        self.is_ones = is_ones
        self.next: list[_Node | int | None] = [None, None]


class Row(dict[int, "tuple[Row, bytes]"]):
    """Where each byte leads from a place in the tree, and what it completes; worked out when first met.

    There are 256 such places, so at most 65,536 entries; text visits some hundred.
    """

    __slots__ = ("_node",)

    def __init__(self, node: _Node) -> None:
        super().__init__()
        self._node = node

    @property
    def may_end(self) -> bool:
        """Return whether a string may end here: in nothing, or in padding."""
        return self._node.is_ones and self._node.depth <= _MOST_PADDING_BITS

    def __missing__(self, byte: int) -> "tuple[Row, bytes]":
        """Walk the tree for the eight bits of a byte."""
        node, done = self._node, bytearray()
        for shift in range(7, -1, -1):
            found = node.next[byte >> shift & 1]
            if found is None or found == _EOS:
                raise HuffmanFault("A header string has bits that stand for nothing.")
            if isinstance(found, int):
                done.append(found)
                node = _root()
            else:
                node = found
        result = self[byte] = (_row(node), bytes(done))
        return result


@cache
def _root() -> _Node:
    root = _Node(0, is_ones=True)
    for symbol, (code, length) in enumerate(zip(REQUEST_CODES, REQUEST_CODES_LENGTH, strict=True)):
        node = root
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            found = node.next[bit]
            if found is None:
                found = node.next[bit] = _Node(node.depth + 1, is_ones=node.is_ones and bool(bit))
            assert isinstance(found, _Node)
            node = found
        node.next[code & 1] = symbol
    return root


@cache
def _row(node: _Node) -> Row:
    return Row(node)


def decode(octets: bytes) -> bytes:
    """Return the string that Huffman-coded bytes stand for.

    Raises:
        HuffmanFault: they stand for none.
    """
    row, parts = _row(_root()), []
    for byte in octets:
        row, done = row[byte]
        parts.append(done)
    if not row.may_end:
        raise HuffmanFault("A header string ends within a symbol, or is padded with other bits than ones.")
    return b"".join(parts)
