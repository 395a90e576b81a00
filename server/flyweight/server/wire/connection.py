"""One HTTP/2 connection as a server sees it (RFC 9113): bytes in, calls on streams, bytes out; no socket.

    bytes -> frames -> header blocks and data -> streams
    streams -> header blocks and data, as far as the windows reach -> frames -> bytes

Section numbers are those of RFC 9113. Everything is for one thread.
"""

import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from flyweight.server.wire.floods import Allowance, PingPolicy
from flyweight.server.wire.frames import (
    HEADER_BYTES,
    INITIAL_WINDOW,
    LEAST_MAX_FRAME_BYTES,
    MOST_MAX_FRAME_BYTES,
    MOST_STREAM,
    MOST_WINDOW,
    PREFACE,
    SETTINGS_ACK,
    ConnectionFault,
    ErrorCode,
    Flag,
    Kind,
    Setting,
    StreamFault,
    frame,
    goaway,
    rst_stream,
    settings,
    window_update,
    without_padding,
)
from flyweight.server.wire.hpack import Block, Decoder

# What a stream may send before it is read: an image of 224 x 224 in one go, were it not for the connection.
_STREAM_WINDOW: Final = 1 << 20
# What all streams of a connection may have under way at one time.
_CONNECTION_WINDOW: Final = 16 << 20
# The largest frame of data: it is taken as it comes, however large it is, and each frame costs its handling.
_MAX_FRAME_BYTES: Final = 1 << 20
# The largest other frame, which is gathered: four times the header block that is allowed by default.
_MAX_OTHER_BYTES: Final = 64 << 10
# What may wait for the socket before streams wait instead: twice what a socket takes at once.
_MOST_UNSENT_BYTES: Final = 256 << 10
# What may wait for the socket in all: beyond the former only answers to frames that ask for one.
_MOST_UNSENT_ANSWERS_BYTES: Final = 1 << 20
# A frame of ours, whatever size the client allows: streams take turns by frames.
_LARGEST_SENT_BYTES: Final = 64 << 10
# Streams that were ended here and of which frames may still be under way.
_MOST_REMEMBERED: Final = 256
# The largest burst of an honest client, many times: of pings, of settings, of calls that it cancels.
_BURST: Final = 1000
_PER_SECOND: Final = 100.0
# Frames that one header block may be spread over: 16 KiB each, of which the block may have one.
_MOST_CONTINUATIONS: Final = 8


class Listener(Protocol):
    """Who answers on a stream."""

    def on_data(self, payload: memoryview) -> None:
        """Take bytes; they are valid during the call only.

        Raises:
            StreamFault: they cannot be.
        """
        ...

    def on_end(self) -> None:
        """Note that the caller sends no more."""
        ...

    def on_close(self, code: ErrorCode | None) -> None:
        """Note that the stream is over, by both sides or by a reset; told once."""
        ...


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask for."""

    max_streams: int = 1088
    max_header_bytes: int = 16 << 10
    min_ping_seconds: float = 5.0


class Stream:
    """One stream: what is left of its windows, and what waits for them."""

    __slots__ = (
        "is_closed",
        "is_ended_here",
        "is_ended_there",
        "listener",
        "number",
        "owed",
        "receive_window",
        "send_window",
        "trailers",
        "unsent",
    )

    def __init__(self, number: int, send_window: int) -> None:
        self.number = number
        self.send_window = send_window
        self.receive_window = _STREAM_WINDOW
        # Bytes that were taken and are not given back to the caller's window yet.
        self.owed = 0
        self.is_ended_there = self.is_ended_here = self.is_closed = False
        self.unsent: deque[tuple[memoryview, Callable[[], None] | None]] = deque()
        self.trailers: bytes | None = None
        self.listener: Listener | None = None


class Connection:
    """Speaks HTTP/2 with one client. `receive` what it sends; send what `take_output` returns.

    Args:
        limits: what is too much.
        accept: is given each new stream and its header block, and sets the stream's listener.
    """

    def __init__(self, limits: Limits, accept: Callable[[Stream, Block], None]) -> None:
        self._limits = limits
        self._accept = accept
        self._decoder = Decoder(limits.max_header_bytes)
        self.streams: dict[int, Stream] = {}
        self._last_stream = 0
        # The last stream that is gone on with, as the client was told.
        self._last_told = MOST_STREAM
        self._rest = b""
        self._has_preface = self._has_settings = False
        # What is still to come of a frame of data, and whose it is.
        self._left = self._data_flags = self._data_stream = 0
        self._block: _Assembly | None = None
        self._ended_here: deque[int] = deque(maxlen=_MOST_REMEMBERED)
        self._send_window = INITIAL_WINDOW
        self._initial_window = INITIAL_WINDOW
        self._sent_frame_bytes = LEAST_MAX_FRAME_BYTES
        self._receive_window = _CONNECTION_WINDOW
        self._owed = 0
        # In order of their turns: streams that have something to send and may not yet.
        self._waiting: dict[int, Stream] = {}
        self._output: list[bytes | memoryview] = []
        self._output_bytes = 0
        self._nuisances = Allowance("frames that carry nothing", _BURST, _PER_SECOND)
        self._resets = Allowance("calls that are cancelled at once", _BURST, _PER_SECOND)
        self._pings = PingPolicy(limits.min_ping_seconds)
        # Whether headers or data were sent since the last ping came.
        self._has_sent = False
        # Pings of ours that are not acknowledged yet.
        self._asked = 0
        self.is_closing = False
        # Whether streams are refused; before that, whether the client was asked to open no more of them.
        self.is_draining = self._asks_to_leave = False
        ours = {
            Setting.MAX_CONCURRENT_STREAMS: limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
            Setting.MAX_FRAME_SIZE: _MAX_FRAME_BYTES,
        }
        self._write(settings(ours) + window_update(0, _CONNECTION_WINDOW - INITIAL_WINDOW))

    # --- bytes in ---

    def receive(self, octets: bytes) -> None:
        """Take what the client sent. Whatever it did wrong is answered; see `is_closing`."""
        if self.is_closing:
            return
        try:
            self._receive(octets)
        except ConnectionFault as fault:
            self.close(fault.code, str(fault))

    def _receive(self, octets: bytes) -> None:
        if not self._has_preface:
            octets = self._rest + octets
            # Section 3.4.
            size = min(len(octets), len(PREFACE))
            if octets[:size] != PREFACE[:size]:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "This port speaks HTTP/2 without an upgrade.")
            self._has_preface = size == len(PREFACE)
            self._rest = b"" if self._has_preface else octets
            at = size if self._has_preface else len(octets)
        elif self._left:
            at = self._go_on(octets)
        elif self._rest:
            at = self._complete(octets)
        else:
            at = 0
        if at < len(octets) and not self.is_closing:
            self._take_frames(octets, at)

    def _go_on(self, octets: bytes) -> int:
        """Take more of the data of a frame that is under way; return how many bytes that were."""
        part = memoryview(octets)[: self._left]
        self._left -= len(part)
        self._guarded(_DATA_KIND, 0 if self._left else self._data_flags, self._data_stream, part)
        return len(part)

    def _complete(self, octets: bytes) -> int:
        """Take the frame of which the beginning came before; return how many bytes were missing.

        Only these are copied, and not all that came with them.
        """
        rest, taken = self._rest, 0
        if len(rest) < HEADER_BYTES:
            taken = min(len(octets), HEADER_BYTES - len(rest))
            rest += octets[:taken]
        if len(rest) >= HEADER_BYTES:
            missing = HEADER_BYTES + int.from_bytes(rest[:3], "big") - len(rest)
            if missing > 0:
                part = octets[taken : taken + missing]
                rest += part
                taken += len(part)
        self._rest = b""
        self._take_frames(rest, 0)
        return taken

    def _take_frames(self, octets: bytes, at: int) -> None:
        """Take all frames from `at` on, and keep what there is of another."""
        end, view = len(octets), memoryview(octets)
        while end - at >= HEADER_BYTES:
            upper, lower, kind, flags, number = _unpack_header(octets, at)
            size = upper << 8 | lower
            number &= _STREAM_BITS
            body = at + HEADER_BYTES
            following = body + size
            if self._block is not None or not self._has_settings:
                self._check_order(kind, number)
            if size > (_MAX_FRAME_BYTES if kind == _DATA_KIND else _MAX_OTHER_BYTES):
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A frame is larger than was agreed on.")
            if following > end:
                if kind == _DATA_KIND and end > body and not flags & Flag.PADDED:
                    # Data is never gathered here.
                    self._left, self._data_flags, self._data_stream = following - end, flags, number
                    self._guarded(kind, 0, number, view[body:])
                    return
                break
            self._guarded(kind, flags, number, view[body:following])
            at = following
            if self.is_closing:
                return
        self._rest = octets[at:]

    def _check_order(self, kind: int, number: int) -> None:
        """Look at what may follow what came before."""
        if self._block is not None and (kind != Kind.CONTINUATION or number != self._block.number):
            # Section 6.10.
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A header block is not continued.")
        if not self._has_settings and kind != Kind.SETTINGS:
            # Section 3.4.
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "The first frame is not SETTINGS.")

    def _guarded(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        """Have a frame handled; what is wrong with its stream ends that."""
        if kind >= len(_HANDLERS):
            # Section 4.1: what nobody knows is passed over.
            self._nuisances.spend()
            return
        try:
            _HANDLERS[kind](self, flags, number, payload)
        except StreamFault as fault:
            self.reset(number, fault.code)

    def _on_data(self, flags: int, number: int, payload: memoryview) -> None:
        """Take data (section 6.1)."""
        size = len(payload)
        # Section 6.9: padding counts, and so does what comes on a stream that is closed.
        self._receive_window -= size
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "More data came than was allowed in all.")
        self._owed += size
        if self._owed > _CONNECTION_WINDOW // 2:
            self._write(window_update(0, self._owed))
            self._receive_window += self._owed
            self._owed = 0
        stream = self.streams.get(number)
        if stream is None or stream.is_ended_there:
            self._refuse_unknown(number)
            return
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "More data came than was allowed.")
        if flags & _PADDED:
            payload = without_padding(flags, payload)
            # Nobody else gives it back.
            stream.owed += size - len(payload)
        is_end = flags & _END_STREAM
        if payload:
            assert stream.listener is not None
            stream.listener.on_data(payload)
        elif not is_end:
            self._nuisances.spend()
        if is_end:
            self._end_there(stream)

    def _refuse_unknown(self, number: int) -> None:
        """Answer to a frame on a stream that takes none (section 5.1)."""
        if number == 0 or not number & 1 or number > self._last_stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"There is no stream {number}.")
        if number not in self._ended_here:
            raise StreamFault(ErrorCode.STREAM_CLOSED, f"Stream {number} is closed.")

    def _on_headers(self, flags: int, number: int, payload: memoryview) -> None:
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
        if flags & Flag.END_HEADERS:
            self._take_block(number, flags, bytes(payload))
        else:
            self._block = _Assembly(number, flags, bytes(payload))

    def _on_continuation(self, flags: int, number: int, payload: memoryview) -> None:
        """Take the next part of a header block (section 6.10)."""
        block = self._block
        if block is None:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A CONTINUATION continues nothing.")
        block.parts.append(bytes(payload))
        if len(block.parts) > _MOST_CONTINUATIONS:
            raise ConnectionFault(ErrorCode.ENHANCE_YOUR_CALM, "A header block has no end.")
        if flags & Flag.END_HEADERS:
            self._block = None
            self._take_block(number, block.flags, b"".join(block.parts))

    def _take_block(self, number: int, flags: int, octets: bytes) -> None:
        # Section 4.3: also one that is refused is read, for the table of the next depends on it.
        block = self._decoder.decode(octets)
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, flags, block)
            return
        if number <= self._last_stream:
            if number in self._ended_here:
                return
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"Stream {number} is closed.")
        if self.is_draining:
            # Section 6.8: it was told that nothing more is taken, or will be in a moment.
            self._last_stream = number
            self.reset(number, ErrorCode.REFUSED_STREAM)
            return
        self._last_stream = number
        if len(self.streams) >= self._limits.max_streams:
            self._resets.spend()
            self.reset(number, ErrorCode.REFUSED_STREAM)
            return
        stream = self.streams[number] = Stream(number, self._initial_window)
        self._accept(stream, block)
        if flags & Flag.END_STREAM and not stream.is_closed:
            self._end_there(stream)

    def _take_trailers(self, stream: Stream, flags: int, block: Block) -> None:
        """Take the header block after the data (section 8.1), of which gRPC needs nothing."""
        if stream.is_ended_there:
            raise StreamFault(ErrorCode.STREAM_CLOSED, f"Stream {stream.number} has ended.")
        if any(name.startswith(b":") for name, _ in block.pairs):
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "Trailers have no pseudo-headers.")
        if not flags & Flag.END_STREAM:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "Trailers do not end their stream.")
        self._end_there(stream)

    def _end_there(self, stream: Stream) -> None:
        stream.is_ended_there = True
        if stream.is_ended_here:
            self._forget(stream, None)
        elif stream.listener is not None:
            stream.listener.on_end()

    def _on_priority(self, _flags: int, number: int, payload: memoryview) -> None:
        """Pass over a priority (section 6.3), which RFC 9113 deprecates."""
        self._nuisances.spend()
        if number == 0:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PRIORITY names no stream.")
        if len(payload) != 5:
            sentence = "PRIORITY has five bytes."
            if number > self._last_stream:
                # Section 6.4: nothing is reset that was not opened.
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, sentence)
            raise StreamFault(ErrorCode.FRAME_SIZE_ERROR, sentence)

    def _on_rst_stream(self, _flags: int, number: int, payload: memoryview) -> None:
        """Take the end of a stream (section 6.4)."""
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM has four bytes.")
        if number == 0 or number > self._last_stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"There is no stream {number} to reset.")
        stream = self.streams.get(number)
        if stream is None:
            self._nuisances.spend()
            return
        # CVE-2023-44487: calls that are begun only to be cancelled.
        self._resets.spend()
        code = int.from_bytes(payload, "big")
        self._forget(stream, ErrorCode(code) if code in _CODES else ErrorCode.INTERNAL_ERROR)

    def _on_settings(self, flags: int, number: int, payload: memoryview) -> None:
        """Take what the client says of itself (section 6.5)."""
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "SETTINGS are of the connection.")
        if flags & Flag.ACK:
            if payload:
                raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "An acknowledgement holds nothing.")
            return
        if len(payload) % 6:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A setting has six bytes.")
        self._nuisances.spend()
        self._has_settings = True
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            self._set(key, int.from_bytes(payload[at + 2 : at + 6], "big"))
        self._write(SETTINGS_ACK)
        self._pump()

    def _set(self, key: int, value: int) -> None:
        """Take one setting (section 6.5.2); those about header tables and pushes mean nothing here."""
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1.")
        if key == Setting.MAX_FRAME_SIZE:
            if not LEAST_MAX_FRAME_BYTES <= value <= MOST_MAX_FRAME_BYTES:
                raise ConnectionFault(
                    ErrorCode.PROTOCOL_ERROR, f"Frames of {value} bytes cannot be agreed on."
                )
            self._sent_frame_bytes = min(value, _LARGEST_SENT_BYTES)
        elif key == Setting.INITIAL_WINDOW_SIZE:
            if value > MOST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"{value} is no window.")
            # Section 6.9.2: it changes all windows by as much, which may make them negative.
            change, self._initial_window = value - self._initial_window, value
            for stream in self.streams.values():
                stream.send_window += change
                if stream.send_window > MOST_WINDOW:
                    raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.")
                if stream.unsent:
                    self._waiting[stream.number] = stream

    def _on_push_promise(self, _flags: int, _number: int, _payload: memoryview) -> None:
        """Refuse what only servers send (section 8.4)."""
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A client does not promise.")

    def _on_ping(self, flags: int, number: int, payload: memoryview) -> None:
        """Answer a ping (section 6.7)."""
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "PING is of the connection.")
        if len(payload) != 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "PING has eight bytes.")
        if flags & Flag.ACK:
            self._on_ping_answer(bytes(payload))
            return
        if self._has_sent:
            self._has_sent = False
            self._pings.forgive()
        self._pings.note()
        self._write(frame(Kind.PING, Flag.ACK, 0, bytes(payload)))

    def _on_ping_answer(self, payload: bytes) -> None:
        if not self._asked:
            self._nuisances.spend()
            return
        self._asked -= 1
        if payload == _LEAVE:
            self.turn_away()

    def _on_goaway(self, _flags: int, number: int, payload: memoryview) -> None:
        """Note that the client opens no more streams (section 6.8), which it need not have said."""
        if number:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "GOAWAY is of the connection.")
        if len(payload) < 8:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY has eight bytes and more.")
        self._nuisances.spend()

    def _on_window_update(self, _flags: int, number: int, payload: memoryview) -> None:
        """Take leave to send more (section 6.9)."""
        if len(payload) != 4:
            raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE has four bytes.")
        credit = int.from_bytes(payload, "big") & MOST_WINDOW
        if number == 0:
            if credit == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A window grows by nothing.")
            self._send_window += credit
            if self._send_window > MOST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "The connection's window is too large.")
            self._pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            if number > self._last_stream:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"There is no stream {number}.")
            # Section 6.9: it may have been under way as the stream was closed.
            return
        if credit == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "A window grows by nothing.")
        if not stream.unsent:
            self._nuisances.spend()
        stream.send_window += credit
        if stream.send_window > MOST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.")
        if stream.unsent:
            self._waiting[number] = stream
            self._pump()

    # --- what streams send ---

    def give_back(self, stream: Stream, size: int) -> None:
        """Let the caller send as much more on a stream as was taken from it (section 6.9)."""
        stream.owed += size
        if stream.owed > _STREAM_WINDOW // 2 and not stream.is_ended_there:
            self._write(window_update(stream.number, stream.owed))
            stream.receive_window += stream.owed
            stream.owed = 0

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """Send the header block that begins an answer (section 8.1)."""
        if not stream.is_closed:
            self._has_sent = True
            self._write(frame(Kind.HEADERS, Flag.END_HEADERS, stream.number, block))

    def send_data(self, stream: Stream, octets: bytes, on_sent: Callable[[], None] | None = None) -> None:
        """Send data, as far and as soon as the windows reach; `on_sent` is told when all of it is."""
        if stream.is_closed:
            return
        stream.unsent.append((memoryview(octets), on_sent))
        self._waiting[stream.number] = stream
        self._pump()

    def send_trailers(self, stream: Stream, block: bytes) -> None:
        """End an answer by a header block, after everything else."""
        if stream.is_closed or stream.trailers is not None:
            return
        stream.trailers = block
        if not stream.unsent:
            self._end_here(stream)

    def answer(
        self, stream: Stream, headers: bytes, octets: bytes, trailers: bytes, prefix: bytes = b""
    ) -> None:
        """Send a whole answer, `prefix` and `octets` being its data: in one go where the windows allow it."""
        size = len(prefix) + len(octets)
        if (
            size <= self._send_window
            and size <= stream.send_window
            and size <= self._sent_frame_bytes
            and self._output_bytes < _MOST_UNSENT_BYTES
            and not stream.is_closed
        ):
            self._send_window -= size
            number = stream.number.to_bytes(4, "big")
            self._write(
                b"".join(
                    (
                        len(headers).to_bytes(3, "big"),
                        _HEADERS,
                        number,
                        headers,
                        size.to_bytes(3, "big"),
                        _DATA,
                        number,
                        prefix,
                        octets,
                        len(trailers).to_bytes(3, "big"),
                        _TRAILERS,
                        number,
                        trailers,
                    )
                )
            )
            self._ended(stream)
            return
        self.send_headers(stream, headers)
        self.send_data(stream, prefix + octets)
        self.send_trailers(stream, trailers)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream without an answer (section 6.4)."""
        self._write(rst_stream(number, code))
        self._ended_here.append(number)
        stream = self.streams.get(number)
        if stream is not None:
            self._forget(stream, code)

    def ping(self) -> None:
        """Ask whether the client is there (section 6.7)."""
        self._asked += 1
        self._write(frame(Kind.PING, Flag.NONE, 0, _ARE_YOU_THERE))

    def drain(self) -> None:
        """Ask the client to open no more streams (section 6.8); those that are on their way are taken.

        What it sends after it heard of that is refused; whoever calls this may not wait for it: see
        `turn_away`.
        """
        if not self._asks_to_leave:
            self._asks_to_leave = True
            self._asked += 1
            self._write(goaway(MOST_STREAM, ErrorCode.NO_ERROR) + frame(Kind.PING, Flag.NONE, 0, _LEAVE))

    def turn_away(self) -> None:
        """Take no more streams, and say which was the last (section 6.8); those that are open go on."""
        if not self.is_draining:
            self.is_draining = self._asks_to_leave = True
            self._last_told = self._last_stream
            self._write(goaway(self._last_stream, ErrorCode.NO_ERROR))

    def close(self, code: ErrorCode, sentence: str = "") -> None:
        """Say why the connection ends, and end all streams (section 5.4.1)."""
        if self.is_closing:
            return
        self.is_closing = True
        if code is not ErrorCode.NO_ERROR or not self.is_draining:
            # Section 6.8: the number does not grow, though streams were refused meanwhile.
            last = min(self._last_stream, self._last_told)
            self._output.append(goaway(last, code, sentence))
        self.abandon()

    def abandon(self) -> None:
        """End all streams: nobody hears of them any more."""
        self.is_closing = True
        # It knows whoever owns this connection: such a circle would wait for the collector.
        self._accept = _accept_nothing
        self._waiting.clear()
        for stream in [*self.streams.values()]:
            self._forget(stream, ErrorCode.CANCEL)

    def take_output(self) -> bytes:
        """Return what is to be sent now; tell by `pump` when it was."""
        octets = bytes(self._output[0]) if len(self._output) == 1 else b"".join(self._output)
        self._output.clear()
        return octets

    @property
    def is_greeted(self) -> bool:
        """Return whether the client began as section 3.4 asks for."""
        return self._has_settings

    @property
    def last_stream(self) -> int:
        """Return the number of the stream that was opened last."""
        return self._last_stream

    @property
    def has_output(self) -> bool:
        """Return whether there is something to send."""
        return bool(self._output)

    def note_sent(self, size: int) -> None:
        """Note how many of the bytes that were taken the socket took; more may follow them."""
        self._output_bytes -= size
        if self._waiting:
            self._pump()

    def _write(self, octets: bytes | memoryview) -> None:
        if self.is_closing:
            return
        self._output.append(octets)
        self._output_bytes += len(octets)
        if self._output_bytes > _MOST_UNSENT_ANSWERS_BYTES:
            self.close(ErrorCode.ENHANCE_YOUR_CALM, "The client does not read what it asks for.")

    def _pump(self) -> None:
        """Send what waits: a frame of each stream in turn, until the windows or the socket are full."""
        waiting = self._waiting
        while waiting and self._send_window > 0 and self._output_bytes < _MOST_UNSENT_BYTES:
            number = next(iter(waiting))
            stream = waiting.pop(number)
            room = min(self._send_window, stream.send_window, self._sent_frame_bytes)
            view, on_sent = stream.unsent[0]
            if room <= 0 and view:
                # A larger window of its own puts it back.
                continue
            part = view[:room]
            self._send_window -= len(part)
            stream.send_window -= len(part)
            self._has_sent = True
            # A client says that it read, which costs us no more than what it read.
            self._nuisances.earn()
            self._write(len(part).to_bytes(3, "big") + _DATA + number.to_bytes(4, "big"))
            self._write(part)
            if stream.is_closed:
                return
            if len(part) < len(view):
                stream.unsent[0] = (view[room:], on_sent)
            else:
                stream.unsent.popleft()
                if on_sent is not None:
                    on_sent()
                    if stream.is_closed:
                        # By whoever was told.
                        continue
            if stream.unsent:
                waiting[number] = stream
            elif stream.trailers is not None:
                self._end_here(stream)

    def _end_here(self, stream: Stream) -> None:
        assert stream.trailers is not None
        flags = Flag.END_HEADERS | Flag.END_STREAM
        self._write(frame(Kind.HEADERS, flags, stream.number, stream.trailers))
        self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        """Note that everything was sent on a stream."""
        if stream.is_closed:
            return
        self._resets.earn()
        # gRPC's core opens the window of each stream once before it is answered.
        self._nuisances.earn()
        stream.is_ended_here = self._has_sent = True
        if not stream.is_ended_there:
            # Section 8.1: the client need not send the rest.
            self._write(rst_stream(stream.number, ErrorCode.NO_ERROR))
            self._ended_here.append(stream.number)
        self._forget(stream, None)

    def _forget(self, stream: Stream, code: ErrorCode | None) -> None:
        if stream.is_closed:
            return
        stream.is_closed = True
        stream.unsent.clear()
        del self.streams[stream.number]
        self._waiting.pop(stream.number, None)
        listener, stream.listener = stream.listener, None
        if listener is not None:
            listener.on_close(code)


class _Assembly:
    """A header block of which more is to come."""

    __slots__ = ("flags", "number", "parts")

    def __init__(self, number: int, flags: int, first: bytes) -> None:
        self.number = number
        self.flags = flags
        self.parts = [first]


# What our pings hold (section 6.7: what their sender likes).
_ARE_YOU_THERE: Final = b"present?"
_LEAVE: Final = b"leaving?"
_CODES: Final = frozenset(ErrorCode)
_DATA_KIND: Final = Kind.DATA
_PADDED: Final = Flag.PADDED
_END_STREAM: Final = Flag.END_STREAM
_STREAM_BITS: Final = (1 << 31) - 1
# Section 4.1: the length in three bytes, kind, flags, and the stream with a reserved bit.
_unpack_header: Final = struct.Struct(">HBBBI").unpack_from
_HEADERS: Final = bytes((Kind.HEADERS, Flag.END_HEADERS))
_DATA: Final = bytes((Kind.DATA, Flag.NONE))
_TRAILERS: Final = bytes((Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM))
# By kind (section 6). Not of each connection: bound methods would be circles.
_HANDLERS: Final = (
    Connection._on_data,
    Connection._on_headers,
    Connection._on_priority,
    Connection._on_rst_stream,
    Connection._on_settings,
    Connection._on_push_promise,
    Connection._on_ping,
    Connection._on_goaway,
    Connection._on_window_update,
    Connection._on_continuation,
)


def _accept_nothing(_stream: Stream, _block: Block) -> None:
    """Stand in on a connection that is over."""
