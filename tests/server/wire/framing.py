"""Calls written in frames: plainly, and in any other way that HTTP/2 allows (RFC 9113, sections 4 to 6)."""

import gzip
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from hpack import Encoder
from hypothesis import strategies as st

from flyweight.server.wire.frames import Flag, Kind, frame
from tests.server.wire.pair import ECHO, FAIL, LATER, MANY, SUM, TELL

LARGEST_FRAME_BYTES: Final = 16_384
Pairs = tuple[tuple[str, str], ...]


def usual(path: str) -> Pairs:
    """Return the fields that every call of gRPC begins with."""
    return (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "here"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )


def message(body: bytes, flag: int = 0) -> bytes:
    """Return a message with its prefix (PROTOCOL-HTTP2.md, Length-Prefixed-Message)."""
    return bytes((flag,)) + len(body).to_bytes(4, "big") + body


class End(Enum):
    """How a caller says that it sends no more."""

    WITH_DATA = "on the last DATA frame"
    EMPTY_DATA = "by an empty DATA frame"
    TRAILERS = "by trailers"
    NEVER = "not at all"


@dataclass(frozen=True)
class Call:
    """What a caller sends on one stream."""

    fields: Pairs
    octets: bytes = b""
    end: End = End.WITH_DATA


@dataclass(frozen=True)
class Form:
    """How a call is written: where its blocks and its data are cut, and what is put around them."""

    block_cuts: tuple[int, ...] = ()
    data_cuts: tuple[int, ...] = ()
    block_padding: int | None = None
    data_padding: int | None = None
    has_priority: bool = False
    is_coded: bool = False

    @property
    def core_reads_it(self) -> bool:
        """The core of gRPC takes no padding, which sections 6.1 and 6.2 allow."""
        return self.data_padding is None and self.block_padding is None


PLAIN: Final = Form()


def _pieces(octets: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(octets) + 1) for cut in cuts})
    edges = [0, *places, len(octets)]
    parts = [octets[begin:end] for begin, end in itertools.pairwise(edges)]
    return [
        part[at : at + LARGEST_FRAME_BYTES - 256]
        for part in parts
        for at in range(0, max(len(part), 1), LARGEST_FRAME_BYTES - 256)
    ]


def _padded(flags: int, payload: bytes, padding: int | None) -> tuple[int, bytes]:
    if padding is None:
        return flags, payload
    return flags | Flag.PADDED, bytes((padding,)) + payload + bytes(padding)


def _block(encoder: Encoder, fields: Pairs, number: int, form: Form, *, ends: bool) -> bytes:
    """Return HEADERS and its CONTINUATION frames, between which nothing else may come (section 6.10)."""
    first, *more = _pieces(encoder.encode(fields, huffman=form.is_coded), form.block_cuts)
    flags = Flag.END_STREAM if ends else Flag.NONE
    if form.has_priority:
        flags |= Flag.PRIORITY
        first = bytes((0, 0, 0, 0, 15)) + first
    flags |= Flag.NONE if more else Flag.END_HEADERS
    flags, first = _padded(flags, first, form.block_padding)
    frames = frame(Kind.HEADERS, flags, number, first)
    for left, part in zip(range(len(more) - 1, -1, -1), more, strict=True):
        frames += frame(Kind.CONTINUATION, Flag.NONE if left else Flag.END_HEADERS, number, part)
    return frames


class Writer:
    """Writes one call, in units that frames of other streams may come between."""

    def __init__(self, call: Call, number: int, form: Form) -> None:
        self._call, self._number, self._form = call, number, form
        parts = _pieces(call.octets, form.data_cuts) if call.octets else []
        if call.end is End.EMPTY_DATA:
            parts.append(b"")
        self._parts = parts
        self._has_begun = False
        self.is_done = False

    def next(self, encoder: Encoder) -> bytes:
        """Return the next unit."""
        call, form = self._call, self._form
        is_ended_by_data = call.end in {End.WITH_DATA, End.EMPTY_DATA}
        if not self._has_begun:
            self._has_begun = True
            ends = is_ended_by_data and not self._parts
            self.is_done = not self._parts and call.end is not End.TRAILERS
            return _block(encoder, call.fields, self._number, form, ends=ends)
        if not self._parts:
            self.is_done = True
            return _block(encoder, (("x-trailer", "1"),), self._number, form, ends=True)
        part, self._parts = self._parts[0], self._parts[1:]
        is_last = not self._parts
        self.is_done = is_last and call.end is not End.TRAILERS
        flags, part = _padded(Flag.END_STREAM if is_last and is_ended_by_data else 0, part, form.data_padding)
        return frame(Kind.DATA, flags, self._number, part)


def written(calls: Sequence[Call], forms: Sequence[Form], turns: Sequence[int] = ()) -> bytes:
    """Return the bytes of several calls on streams 1, 3, 5 ..., whose frames alternate as `turns` say."""
    encoder, octets = Encoder(), b""
    writers = [Writer(call, 2 * n + 1, form) for n, (call, form) in enumerate(zip(calls, forms, strict=True))]
    waiting, under_way, turns = writers, list[Writer](), [*turns]
    while waiting or under_way:
        turn = turns.pop(0) if turns else 0
        # Streams are opened in the order of their numbers (section 5.1.1).
        if waiting and (not under_way or turn % (len(under_way) + 1) == len(under_way)):
            writer, waiting = waiting[0], waiting[1:]
            under_way.append(writer)
        else:
            writer = under_way[turn % len(under_way)]
        octets += writer.next(encoder)
        if writer.is_done:
            under_way.remove(writer)
    return octets


# --- strategies: all of a conversation fits into the windows that every server begins with ---

FORMS: Final = st.builds(
    Form,
    block_cuts=st.lists(st.integers(0, 300), max_size=4).map(tuple),
    data_cuts=st.lists(st.integers(0, 6000), max_size=6).map(tuple),
    block_padding=st.none() | st.integers(0, 255),
    data_padding=st.none() | st.integers(0, 255),
    has_priority=st.booleans(),
    is_coded=st.booleans(),
)
_TEXTS: Final = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)


@st.composite
def calls(draw: st.DrawFn) -> Call:
    path = draw(st.sampled_from([TELL, TELL, LATER, FAIL, ECHO, SUM, MANY, "/t.Pair/Unknown", "/", "*"]))
    sizes = draw(st.lists(st.sampled_from([0, 1, 5, 200, 4000]), max_size=3))
    bodies = [b"[3, 0, 70]"] if path == MANY else [b"z" * size for size in sizes]
    more = [("x-a", draw(_TEXTS)), ("x-code", str(draw(st.integers(1, 16)))), ("x-size", "30")]
    if draw(st.booleans()):
        packed = [message(gzip.compress(body), 1) for body in bodies]
        more.append(("grpc-encoding", "gzip"))
        octets = b"".join(packed)
    else:
        octets = b"".join(map(message, bodies))
    # Who is answered after a message need not be told that there are no more.
    ends = [*End] if octets and path not in {ECHO, SUM} else [each for each in End if each is not End.NEVER]
    return Call((*usual(path), *more), octets, draw(st.sampled_from(ends)))
