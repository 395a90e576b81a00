"""Bytes in, frames out (RFC 9113, sections 3.4, 4 and 6.10): what may follow what, and how large it may be.

Nothing is gathered that need not be: data goes on as it comes, however its frame is cut.
"""

import struct
from collections.abc import Sequence
from typing import Final, Protocol

from flyweight.server.wire.frames import (
    HEADER_BYTES,
    PREFACE,
    STREAM_BITS,
    ConnectionFault,
    ErrorCode,
    Flag,
    Kind,
    StreamFault,
    without_padding,
)

# The largest frame of data; each costs its handling, whatever its size.
MAX_FRAME_BYTES: Final = 1 << 20
# The least that any other frame may have, all of which are gathered: four times the frame that all may send.
_LEAST_GATHERED_BYTES: Final = 64 << 10
# Frames that one header block may be spread over, small ones among them.
_MOST_CONTINUATIONS: Final = 64

_DATA: Final = Kind.DATA
_HEADERS: Final = Kind.HEADERS
_END_STREAM: Final = Flag.END_STREAM
_END_HEADERS: Final = Flag.END_HEADERS
_PADDED: Final = Flag.PADDED
# Section 4.1: the length in three bytes, kind, flags, and the stream with a reserved bit.
_unpack_header: Final = struct.Struct(">HBBBI").unpack_from


class Sink(Protocol):
    """Who takes frames."""

    is_closing: bool

    def take_data(
        self, number: int, payloads: Sequence[memoryview], size: int, padding: int, *, is_end: bool
    ) -> None:
        """Take data of a stream: `size` bytes in order, and how many more there were of padding."""
        ...

    def take_block(self, number: int, octets: bytes, *, is_end: bool) -> None:
        """Take a header block of a stream, whole."""
        ...

    def take_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        """Take a frame of another kind."""
        ...

    def fault(self, number: int, code: ErrorCode) -> None:
        """End a stream with which something was wrong."""
        ...


class FrameReader:
    """Reads the frames of one connection.

    Args:
        max_header_bytes: what a header block may hold; its bytes are fewer, and never twice as many.
    """

    def __init__(self, max_header_bytes: int) -> None:
        # Of a block, and of any frame that is gathered.
        self._most_gathered = max(_LEAST_GATHERED_BYTES, 2 * max_header_bytes)
        self._rest = b""
        self._has_preface = self.has_settings = False
        # What is still to come of a frame of data, and whose it is.
        self._left = self._stream = 0
        self._is_last = False
        self._block: _Assembly | None = None

    def read(self, octets: bytes, sink: Sink) -> None:
        """Take what came.

        Raises:
            ConnectionFault: it is not HTTP/2, or more than is allowed.
        """
        if not self._has_preface:
            at, octets = self._greet(octets)
        elif self._left:
            at = self._go_on(octets, sink)
        elif self._rest:
            at = self._complete(octets, sink)
        else:
            at = 0
        if at < len(octets) and not sink.is_closing:
            self._read(octets, at, sink)

    def _greet(self, octets: bytes) -> tuple[int, bytes]:
        """Look at how a connection begins (section 3.4); return where frames begin, in what there is."""
        octets = self._rest + octets
        size = min(len(octets), len(PREFACE))
        if octets[:size] != PREFACE[:size]:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "This port speaks HTTP/2 without an upgrade.")
        self._has_preface = size == len(PREFACE)
        self._rest = b"" if self._has_preface else octets
        return size, octets

    def _go_on(self, octets: bytes, sink: Sink) -> int:
        """Take more of a frame of data that is under way; return how many bytes that were."""
        part = memoryview(octets)[: self._left]
        self._left -= len(part)
        self._give_data(sink, self._stream, (part,), len(part), is_end=self._is_last and not self._left)
        return len(part)

    def _complete(self, octets: bytes, sink: Sink) -> int:
        """Take the frame of which the beginning came before; return how many bytes were missing.

        Only these are copied, and not all that came with them.
        """
        rest, taken = self._rest, 0
        if len(rest) < HEADER_BYTES:
            taken = min(len(octets), HEADER_BYTES - len(rest))
            rest += octets[:taken]
        if len(rest) >= HEADER_BYTES:
            part = octets[taken : taken + HEADER_BYTES + int.from_bytes(rest[:3], "big") - len(rest)]
            rest += part
            taken += len(part)
        self._rest = b""
        self._read(rest, 0, sink)
        return taken

    def _read(self, octets: bytes, at: int, sink: Sink) -> None:
        """Take all frames from `at` on, and keep what there is of another."""
        end, view = len(octets), memoryview(octets)
        while end - at >= HEADER_BYTES and not sink.is_closing:
            upper, lower, kind, flags, number = _unpack_header(octets, at)
            size = upper << 8 | lower
            number &= STREAM_BITS
            following = at + HEADER_BYTES + size
            if self._block is not None or not self.has_settings:
                self._check_order(kind, number)
            is_gathered = kind != _DATA or flags & _PADDED
            if size > (self._most_gathered if is_gathered else MAX_FRAME_BYTES):
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A frame is larger than was agreed on.")
            if kind == _DATA and size and not flags & _PADDED:
                if following > end or not flags & _END_STREAM:
                    at = self._read_data(octets, at, sink)
                    if following > end and not self._left:
                        break
                    continue
                payload = view[at + HEADER_BYTES : following]
                self._give_data(sink, number, (payload,), size, is_end=True)
            elif following > end:
                break
            else:
                self._give(sink, kind, flags, number, view[at + HEADER_BYTES : following])
            at = following
        self._rest = octets[at:]

    def _read_data(self, octets: bytes, at: int, sink: Sink) -> int:
        """Take all data that follows each other, without padding, stream by stream; return where it ends.

        What a large message costs is mostly its frames, of 16 KiB each with most clients, and clients send
        several messages in turns.
        """
        end, view = len(octets), memoryview(octets)
        found: dict[int, list[memoryview]] = {}
        while end - at > HEADER_BYTES:
            upper, lower, kind, flags, number = _unpack_header(octets, at)
            if kind != _DATA or flags & _PADDED:
                break
            size = upper << 8 | lower
            following = at + HEADER_BYTES + size
            if not 0 < size <= MAX_FRAME_BYTES or (flags & _END_STREAM and following <= end):
                break
            number &= STREAM_BITS
            payloads = found.get(number)
            if payloads is None:
                payloads = found[number] = []
            payloads.append(view[at + HEADER_BYTES : following])
            if following > end:
                self._left, self._stream = following - end, number
                self._is_last = bool(flags & _END_STREAM)
                at = end
                break
            at = following
        for number, payloads in found.items():
            self._give_data(sink, number, payloads, sum(map(len, payloads)), is_end=False)
        return at

    def _check_order(self, kind: int, number: int) -> None:
        """Look at whether a frame may follow what came before."""
        if self._block is not None and (kind != Kind.CONTINUATION or number != self._block.number):
            # Section 6.10.
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A header block is not continued.")
        if not self.has_settings and kind != Kind.SETTINGS:
            # Section 3.4.
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The first frame is not SETTINGS.")

    def _give_data(
        self, sink: Sink, number: int, payloads: Sequence[memoryview], size: int, *, is_end: bool
    ) -> None:
        try:
            sink.take_data(number, payloads, size, 0, is_end=is_end)
        except StreamFault as fault:
            sink.fault(number, fault.code)

    def _give(self, sink: Sink, kind: int, flags: int, number: int, payload: memoryview) -> None:
        """Have a frame taken; what is wrong with its stream ends that."""
        try:
            if kind == _HEADERS:
                self._take_headers(sink, flags, number, payload)
            elif kind == _DATA:
                bare = without_padding(flags, payload)
                padding = len(payload) - len(bare)
                is_end = bool(flags & _END_STREAM)
                sink.take_data(number, (bare,), len(bare), padding, is_end=is_end)
            elif kind == Kind.CONTINUATION:
                self._take_continuation(sink, flags, payload)
            else:
                sink.take_frame(kind, flags, number, payload)
                if kind == Kind.SETTINGS:
                    self.has_settings = True
        except StreamFault as fault:
            sink.fault(number, fault.code)

    def _take_headers(self, sink: Sink, flags: int, number: int, payload: memoryview) -> None:
        """Take a header block, or the beginning of one (section 6.2)."""
        if flags & _PADDED:
            payload = without_padding(flags, payload)
        if flags & Flag.PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "HEADERS has no room for its priority.")
            payload = payload[5:]
        if not number & 1:
            # Section 5.1.1.
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"A client does not open stream {number}.")
        is_end = bool(flags & _END_STREAM)
        if flags & _END_HEADERS:
            sink.take_block(number, bytes(payload), is_end=is_end)
        else:
            self._block = _Assembly(number, bytes(payload), is_end=is_end)

    def _take_continuation(self, sink: Sink, flags: int, payload: memoryview) -> None:
        """Take the next part of a header block (section 6.10)."""
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A CONTINUATION continues nothing.")
        block.parts.append(bytes(payload))
        block.size += len(payload)
        if len(block.parts) > _MOST_CONTINUATIONS or block.size > self._most_gathered:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "A header block has no end.")
        if flags & _END_HEADERS:
            self._block = None
            sink.take_block(block.number, b"".join(block.parts), is_end=block.is_end)


class _Assembly:
    """A header block of which more is to come."""

    __slots__ = ("is_end", "number", "parts", "size")

    def __init__(self, number: int, first: bytes, *, is_end: bool) -> None:
        self.number = number
        self.is_end = is_end
        self.parts = [first]
        self.size = len(first)
