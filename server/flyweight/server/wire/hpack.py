"""Header blocks (RFC 7541): read with the whole state of a connection, written with none.

What gRPC clients send repeats from call to call, byte for byte. A block that changed nothing in the table
means the same when it comes again while the table stays as it is, so its bytes are a key. Of one that does
not repeat, because each call has a trace or a time-out of its own, the beginning does: fields that are
indexes into the tables.
"""

import re
from collections.abc import Iterable
from typing import Final

from hpack.table import HeaderTable

from flyweight.server.wire.frames import ConnectionFault, ErrorCode
from flyweight.server.wire.huffman import HuffmanFault
from flyweight.server.wire.huffman import decode as huffman_decode

Pair = tuple[bytes, bytes]
_Entry = tuple[Pair, int]

# Section 2.3.1 and appendix A; the first index is 1.
_PAIRS: Final[tuple[Pair, ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_FIRST_DYNAMIC: Final = len(_PAIRS)
# Section 4.1: what an entry costs beyond its bytes.
_ENTRY_BYTES: Final = 32
# With what each costs.
_STATIC: Final[tuple[_Entry, ...]] = tuple(
    ((name, value), len(name) + len(value) + _ENTRY_BYTES) for name, value in _PAIRS
)
# RFC 9113, section 6.5.2: the size that both ends start with.
DEFAULT_TABLE_BYTES: Final = 4096
# An integer of more bytes than these is beyond everything that is counted here (section 5.1).
_MOST_INTEGER_BYTES: Final = 5
# A stock client's block has 20 to 300 bytes. The fewest kinds of calls that a connection mixes, many times.
_MOST_KNOWN_BLOCKS: Final = 64
_LONGEST_KNOWN_BLOCK: Final = 1024

_INDEXED, _INCREMENTAL, _RESIZE = 0x80, 0x40, 0x20
_HUFFMAN: Final = 0x80
# Indexes of one byte, one after the other (section 6.1).
_INDEXES: Final = re.compile(rb"[\x81-\xfe]*")


def _fault(sentence: str) -> ConnectionFault:
    # RFC 9113, section 4.3: a block that cannot be read ends the connection, for the table is unknown then.
    return ConnectionFault(ErrorCode.COMPRESSION_ERROR, sentence)


class Fields:
    """Header fields that were read.

    Attributes:
        pairs: names and values in order; those beyond the limit are left out.
        size: bytes as RFC 9113, section 6.5.2 counts them (MAX_HEADER_LIST_SIZE), of all.
        meaning: whatever their reader made of them; fields that come again are the same object.
    """

    __slots__ = ("meaning", "pairs", "size")

    def __init__(self, pairs: tuple[Pair, ...], size: int) -> None:
        self.pairs = pairs
        self.size = size
        self.meaning: object = None


class Block(Fields):
    """A header block that was read; it begins with the fields of its `lead`, which others begin with, too."""

    __slots__ = ("lead",)

    def __init__(self, pairs: tuple[Pair, ...], size: int, lead: Fields) -> None:
        # Not by the class above: a call costs as much as all else here.
        self.pairs = pairs
        self.size = size
        self.meaning = None
        self.lead = lead


_NO_FIELDS: Final = Fields((), 0)


class Decoder:
    """Reads the header blocks of one connection, in order.

    Args:
        most_bytes: of a block's list, as RFC 9113, section 6.5.2 counts them; the rest is read and left out.
        table_bytes: what our SETTINGS_HEADER_TABLE_SIZE says.
    """

    def __init__(self, most_bytes: int, table_bytes: int = DEFAULT_TABLE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._most_table_bytes = self._table_limit = table_bytes
        # The newest is last.
        self._table: list[_Entry] = []
        self._table_bytes = 0
        self._has_changed = False
        # While the table stays as it is.
        self._known: dict[bytes, Block] = {}
        self._seen: set[int] = set()
        self._leads: dict[bytes, Fields] = {}
        self._last_lead = _NO_FIELDS

    def decode(self, octets: bytes) -> Block:
        """Read a block.

        Raises:
            ConnectionFault: it cannot be read.
        """
        known = self._known.get(octets)
        if known is not None:
            return known
        self._has_changed = False
        try:
            block = self._read(octets)
        except IndexError:
            raise _fault("A header block ends within a field, or names an entry that is not there.") from None
        except HuffmanFault as error:
            raise _fault(str(error)) from None
        if self._has_changed:
            self._known.clear()
            self._leads.clear()
        elif len(octets) <= _LONGEST_KNOWN_BLOCK:
            self._remember(octets, block)
        return block

    def _remember(self, octets: bytes, block: Block) -> None:
        """Keep a block that came before: most that never repeat would be kept for nothing."""
        mark = hash(octets)
        if mark in self._seen:
            if len(self._known) >= _MOST_KNOWN_BLOCKS:
                self._known.clear()
            self._known[octets] = block
        else:
            if len(self._seen) >= _MOST_KNOWN_BLOCKS:
                self._seen.clear()
            self._seen.add(mark)

    def _lead(self, octets: bytes) -> Fields:
        """Return the fields that indexes of one byte stand for."""
        lead = self._leads.get(octets)
        if lead is not None:
            return lead
        pairs: list[Pair] = []
        size, table = 0, self._table
        for octet in octets:
            index = octet & 0x7F
            pair, cost = table[_FIRST_DYNAMIC - 1 - index] if index >= _FIRST_DYNAMIC else _STATIC[index]
            size += cost
            if size <= self._most_bytes:
                pairs.append(pair)
        found, lead = tuple(pairs), self._last_lead
        if found != lead.pairs or size != lead.size:
            # Else the same under other indexes: the table has changed.
            lead = self._last_lead = Fields(found, size)
        if len(octets) <= _LONGEST_KNOWN_BLOCK:
            if len(self._leads) >= _MOST_KNOWN_BLOCKS:
                self._leads.clear()
            self._leads[octets] = lead
        return lead

    def _entry(self, index: int) -> _Entry:
        # Section 2.3.3: those that never change, then the newest first.
        if index >= _FIRST_DYNAMIC:
            return self._table[_FIRST_DYNAMIC - 1 - index]
        if not index:
            raise IndexError
        return _STATIC[index]

    def _read(self, octets: bytes) -> Block:
        found = _INDEXES.match(octets)
        at, end, most = found.end() if found else 0, len(octets), self._most_bytes
        lead = self._lead(octets[:at]) if at else _NO_FIELDS
        pairs, size = [*lead.pairs], lead.size
        while at < end:
            first = octets[at]
            at += 1
            if first & _INDEXED:
                index = first & 0x7F
                if index == 0x7F:
                    index, at = _read_integer(octets, at, index)
                pair, cost = self._entry(index)
            elif first & _INCREMENTAL:
                pair, cost, at = self._read_literal(octets, at, first, 0x3F)
                self._insert(pair, cost)
            elif first & _RESIZE:
                # Section 4.2: only before the first field.
                if size:
                    raise _fault("A header block changes the table's size after its first field.")
                at = self._resize(octets, at - 1)
                continue
            else:
                pair, cost, at = self._read_literal(octets, at, first, 0x0F)
            size += cost
            if size <= most:
                pairs.append(pair)
        return Block(tuple(pairs), size, lead)

    def _read_literal(self, octets: bytes, at: int, first: int, mask: int) -> tuple[Pair, int, int]:
        """Read a literal field (section 6.2) whose first byte has its name's index under `mask`.

        Returns:
            The pair, what it costs, and where it ends.
        """
        index = first & mask
        if index == mask:
            index, at = _read_integer(octets, at, index)
        if index:
            (name, _), _ = self._entry(index)
        else:
            name, at = _read_string(octets, at)
        # As in `_read_string`: here it is most of what calls do not have in common.
        length = octets[at]
        end = at + 1 + length
        if length < 0x7F and end <= len(octets):
            value = octets[at + 1 : end]
        else:
            value, end = _read_string(octets, at)
        return (name, value), len(name) + len(value) + _ENTRY_BYTES, end

    def _resize(self, octets: bytes, at: int) -> int:
        """Take the table's size as the other end now has it (section 6.3)."""
        size = octets[at] & 0x1F
        at += 1
        if size == 0x1F:
            size, at = _read_integer(octets, at, size)
        if size > self._most_table_bytes:
            raise _fault(
                f"A header table of {size} bytes is larger than the {self._most_table_bytes} agreed on."
            )
        self._has_changed = True
        self._table_limit = size
        self._evict(0)
        return at

    def _insert(self, pair: Pair, cost: int) -> None:
        """Add an entry (section 4.4): what is larger than the table empties it."""
        self._has_changed = True
        if self._table_bytes + cost > self._table_limit:
            self._evict(cost)
        if cost <= self._table_limit:
            self._table.append((pair, cost))
            self._table_bytes += cost

    def _evict(self, coming_bytes: int) -> None:
        """Drop the oldest entries until there is room for `coming_bytes` (section 4.3)."""
        number = 0
        while self._table_bytes + coming_bytes > self._table_limit and number < len(self._table):
            self._table_bytes -= self._table[number][1]
            number += 1
        del self._table[:number]


def _read_integer(octets: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Read the rest of an integer whose prefix is full (section 5.1)."""
    value, shift = prefix, 0
    for _ in range(_MOST_INTEGER_BYTES):
        octet = octets[at]
        at += 1
        value += (octet & 0x7F) << shift
        if not octet & 0x80:
            return value, at
        shift += 7
    raise _fault("A header block has an integer of more than five bytes.")


def _read_string(octets: bytes, at: int) -> tuple[bytes, int]:
    """Read a string literal (section 5.2)."""
    first = octets[at]
    length = first & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _read_integer(octets, at, length)
    end = at + length
    text = octets[at:end]
    if len(text) < length:
        raise _fault("A header string is longer than its block.")
    return (huffman_decode(text) if first & _HUFFMAN else text), end


def encode(pairs: Iterable[Pair]) -> bytes:
    """Write a block of literals that enter no table (section 6.2.2), so that its bytes never change.

    A pair of the static table is its index (section 6.1). Names have to be lower case.
    """
    parts: list[bytes] = []
    for name, value in pairs:
        whole = _WHOLE.get((name, value))
        if whole is not None:
            parts.append(_integer(whole, 7, _INDEXED))
            continue
        index = _NAMED.get(name)
        parts.append(b"\x00" + _string(name) if index is None else _integer(index, 4, 0))
        parts.append(_string(value))
    return b"".join(parts)


_WHOLE: Final = {pair: index for index, pair in enumerate(_PAIRS) if pair[1]}
_NAMED: Final = {pair[0]: index for index, pair in reversed([*enumerate(_PAIRS)]) if index}


def _integer(value: int, prefix_bits: int, flags: int) -> bytes:
    """Write an integer (section 5.1)."""
    full = (1 << prefix_bits) - 1
    if value < full:
        return bytes((flags | value,))
    octets = bytearray((flags | full,))
    value -= full
    while value > 0x7F:
        octets.append(0x80 | value & 0x7F)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _string(text: bytes) -> bytes:
    return _integer(len(text), 7, 0) + text
