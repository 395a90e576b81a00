"""Header blocks of HTTP/2 (RFC 7541), as far as a load generator of gRPC needs them.

Requests are written without any state, so that their bytes never change. Answers are read with the dynamic
table, but without Huffman codes, which gRPC's core does not write.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

# RFC 7541, appendix A; of the values only that of :status matters, and is 200 at 8.
_STATIC_NAMES: Final = [
    ":authority",
    ":method",
    ":method",
    ":path",
    ":path",
    ":scheme",
    ":scheme",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    ":status",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "accept",
    "access-control-allow-origin",
    "age",
    "allow",
    "authorization",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "content-length",
    "content-location",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "etag",
    "expect",
    "expires",
    "from",
    "host",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "last-modified",
    "link",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "range",
    "referer",
    "refresh",
    "retry-after",
    "server",
    "set-cookie",
    "strict-transport-security",
    "transfer-encoding",
    "user-agent",
    "vary",
    "via",
    "www-authenticate",
]
_STATIC_VALUES: Final = {
    2: "GET", 3: "POST", 4: "/", 5: "/index.html", 6: "http", 7: "https", 8: "200", 9: "204", 10: "206",
    11: "304", 12: "400", 13: "404", 14: "500", 16: "gzip, deflate",
}  # fmt: skip
# RFC 7541, section 4.1: what an entry costs beyond its bytes.
_ENTRY_BYTES: Final = 32
_TABLE_BYTES: Final = 4096


class UnreadableHeadersError(Exception):
    """A header block uses what is not read here."""


def encode(headers: Iterable[tuple[str, str]]) -> bytes:
    """Return headers as literals that are not indexed (section 6.2.2)."""
    return b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)


def encode_kept(headers: Sequence[tuple[str, str]]) -> tuple[bytes, bytes]:
    """Return headers as literals that enter the other end's table (section 6.2.1), and as their places in it.

    These hold while nothing else enters it (section 2.3.3: the newest entry is the first after the static).
    """
    first = b"".join(b"\x40" + _string(name) + _string(value) for name, value in headers)
    again = bytes(0x80 | _STATIC_ENTRIES + place for place in range(len(headers), 0, -1))
    return first, again


def _string(text: str) -> bytes:
    data = text.encode("ascii")
    return _integer(len(data), 7) + data


def _integer(value: int, bits: int) -> bytes:
    """Return an integer with a prefix of so many bits (section 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((value,))
    out, value = bytearray((limit,)), value - limit
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    out.append(value)
    return bytes(out)


# Appendix A.
_STATIC_ENTRIES: Final = 61


class Decoder:
    """The dynamic table of one connection's answers."""

    def __init__(self) -> None:
        self._table: deque[tuple[str, str]] = deque()
        self._size = 0
        self._limit = _TABLE_BYTES

    def decode(self, block: bytes) -> Sequence[tuple[str, str]]:
        """Return a block's headers.

        Raises:
            UnreadableHeadersError: it is garbled, or has Huffman codes.
        """
        found: list[tuple[str, str]] = []
        at = 0
        try:
            while at < len(block):
                first = block[at]
                if first & 0x80:
                    index, at = _read_integer(block, at, 7)
                    found.append(self._entry(index))
                elif first & 0xE0 == 0x20:
                    self._limit, at = _read_integer(block, at, 5)
                    self._evict()
                else:
                    is_kept = bool(first & 0x40)
                    header, at = self._literal(block, at, 6 if is_kept else 4)
                    found.append(header)
                    if is_kept:
                        self._add(header)
        except IndexError as error:
            raise UnreadableHeadersError(f"a header block of {len(block)} bytes ends early") from error
        return found

    def _literal(self, block: bytes, at: int, bits: int) -> tuple[tuple[str, str], int]:
        index, at = _read_integer(block, at, bits)
        if index:
            name = self._entry(index)[0]
        else:
            name, at = _read_string(block, at)
        value, at = _read_string(block, at)
        return (name, value), at

    def _entry(self, index: int) -> tuple[str, str]:
        if 0 < index <= len(_STATIC_NAMES):
            return _STATIC_NAMES[index - 1], _STATIC_VALUES.get(index, "")
        return self._table[index - len(_STATIC_NAMES) - 1]

    def _add(self, header: tuple[str, str]) -> None:
        self._table.appendleft(header)
        self._size += _cost(header)
        self._evict()

    def _evict(self) -> None:
        while self._size > self._limit:
            self._size -= _cost(self._table.pop())


def _cost(header: tuple[str, str]) -> int:
    return len(header[0]) + len(header[1]) + _ENTRY_BYTES


def _read_integer(block: bytes, at: int, bits: int) -> tuple[int, int]:
    limit = (1 << bits) - 1
    value, at = block[at] & limit, at + 1
    if value < limit:
        return value, at
    shift = 0
    while True:
        byte, at = block[at], at + 1
        value += (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at


def _read_string(block: bytes, at: int) -> tuple[str, int]:
    if block[at] & 0x80:
        raise UnreadableHeadersError("the server writes headers with Huffman codes: use h2load for it")
    length, at = _read_integer(block, at, 7)
    if at + length > len(block):
        raise UnreadableHeadersError("a string is longer than its header block")
    return block[at : at + length].decode("latin-1"), at + length
