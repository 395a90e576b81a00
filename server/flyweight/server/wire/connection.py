"""One HTTP/2 connection as a server sees it (RFC 9113): bytes in, calls on streams, bytes out; no socket.

    bytes -> frames -> header blocks and data -> streams
    streams -> header blocks and data, as far as the windows reach -> frames -> bytes

Section numbers are those of RFC 9113. Everything is for one thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from flyweight.server.wire.answering import Answering
from flyweight.server.wire.control import check_shape, read_settings
from flyweight.server.wire.frames import (
    INITIAL_WINDOW,
    MOST_WINDOW,
    SETTINGS_ACK,
    ConnectionFault,
    ErrorCode,
    Flag,
    Kind,
    Setting,
    StreamFault,
    settings,
    window_update,
)
from flyweight.server.wire.heads import check_trailers
from flyweight.server.wire.hpack import Block, Decoder
from flyweight.server.wire.incoming import MAX_FRAME_BYTES, FrameReader
from flyweight.server.wire.streams import STREAM_WINDOW, Stream

# What all streams of a connection may have under way at one time.
_CONNECTION_WINDOW: Final = 16 << 20
# Data by which a client does nothing but keep us busy; what was under way as a stream ended comes in frames.
_LITTLE_BYTES: Final = 256
# What answers of one connection may wait for its windows before more calls are refused: as large as a message
# may be by default. Whoever does not read answers has no more of them made.
_MOST_WAITING_BYTES: Final = 64 << 20
_CODES: Final = frozenset(ErrorCode)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may ask for."""

    max_streams: int = 1088
    max_header_bytes: int = 16 << 10
    min_ping_seconds: float = 5.0


class Connection(Answering):
    """Speaks HTTP/2 with one client. `receive` what it sends; send what `take_output` returns.

    Args:
        limits: what is too much.
        accept: is given each new stream and its header block, and sets the stream's listener.
    """

    def __init__(self, limits: Limits, accept: Callable[[Stream, Block], None]) -> None:
        super().__init__(limits.min_ping_seconds)
        self._limits = limits
        self._accept = accept
        self._decoder = Decoder(limits.max_header_bytes)
        self._reader = FrameReader(limits.max_header_bytes)
        self._initial_window = INITIAL_WINDOW
        self._receive_window = _CONNECTION_WINDOW
        self._owed = 0
        # Of which data came last, by its number.
        self.latest_stream = 0
        # Whether the client has taken our settings.
        self._is_acknowledged = False
        ours = {
            Setting.MAX_CONCURRENT_STREAMS: limits.max_streams,
            Setting.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            Setting.MAX_HEADER_LIST_SIZE: limits.max_header_bytes,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
        }
        self._out.write(settings(ours) + window_update(0, _CONNECTION_WINDOW - INITIAL_WINDOW))

    # --- bytes in ---

    def receive(self, octets: bytes) -> None:
        """Take what the client sent. Whatever it did wrong is answered; see `is_closing`."""
        if self.is_closing:
            return
        try:
            self._reader.read(octets, self)
        except ConnectionFault as fault:
            self.close(fault.code, str(fault))
        if self._out.is_too_much:
            self.close(ErrorCode.ENHANCE_YOUR_CALM, "The client does not read what it asks for.")

    def take_data(
        self, number: int, payloads: Sequence[memoryview], size: int, padding: int, *, is_end: bool
    ) -> None:
        """Take data (section 6.1)."""
        # Section 6.9: padding counts, and so does what comes on a stream that is closed.
        whole = size + padding
        self._receive_window -= whole
        if self._receive_window < 0:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "More data came than was allowed in all.")
        self._owed += whole
        if self._owed > _CONNECTION_WINDOW // 2:
            self._out.write(window_update(0, self._owed))
            self._receive_window += self._owed
            self._owed = 0
        stream = self.streams.get(number)
        if stream is None or stream.is_ended_there:
            self._refuse_unknown(number)
            if size < _LITTLE_BYTES * len(payloads):
                for _ in payloads:
                    self._nuisances.spend()
            return
        stream.receive_window -= whole
        if stream.receive_window < 0:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "More data came than was allowed.")
        # Nobody else gives it back.
        stream.owed += padding
        if size:
            self.latest_stream = number
            assert stream.listener is not None
            stream.listener.on_data(payloads, size)
        elif not is_end:
            self._nuisances.spend()
        if is_end and not stream.is_closed:
            self._end_there(stream)

    def _refuse_unknown(self, number: int) -> None:
        """Answer to a frame on a stream that takes none (section 5.1)."""
        if number == 0 or not number & 1 or number > self._last_stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"There is no stream {number}.")
        if number not in self._ended_here:
            raise StreamFault(ErrorCode.STREAM_CLOSED, f"Stream {number} is closed.")

    def take_block(self, number: int, octets: bytes, *, is_end: bool) -> None:
        """Take a header block (section 6.2): the beginning of a request, or its end."""
        # Section 4.3: also one that is refused is read, for the table of the next depends on it.
        block = self._decoder.decode(octets)
        stream = self.streams.get(number)
        if stream is not None:
            self._take_trailers(stream, block, is_end=is_end)
            return
        if number <= self._last_stream:
            if number in self._ended_here:
                self._nuisances.spend()
                return
            raise ConnectionFault(ErrorCode.STREAM_CLOSED, f"Stream {number} is closed.")
        self._last_stream = number
        if self._leaving.is_told:
            # Section 6.8: it was told that nothing more is taken, or will be in a moment.
            self._nuisances.spend()
            self.reset(number, ErrorCode.REFUSED_STREAM)
            return
        if len(self.streams) >= self._limits.max_streams or self._out.waiting_bytes > _MOST_WAITING_BYTES:
            self._resets.spend()
            self.reset(number, ErrorCode.REFUSED_STREAM)
            return
        stream = self.streams[number] = Stream(number, self._initial_window)
        self._accept(stream, block)
        if is_end and not stream.is_closed:
            self._end_there(stream)

    def _take_trailers(self, stream: Stream, block: Block, *, is_end: bool) -> None:
        """Take the header block after the data (section 8.1), of which gRPC needs nothing."""
        if stream.is_ended_there:
            raise StreamFault(ErrorCode.STREAM_CLOSED, f"Stream {stream.number} has ended.")
        check_trailers(block)
        if not is_end:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "Trailers do not end their stream.")
        self._end_there(stream)

    def _end_there(self, stream: Stream) -> None:
        stream.is_ended_there = True
        if stream.listener is not None:
            stream.listener.on_end()

    def take_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        """Take a frame that is neither data nor headers."""
        check_shape(kind, flags, number, len(payload))
        handle = _HANDLERS.get(kind)
        if handle is None:
            # A priority, which RFC 9113 deprecates (section 5.3.2); that the client opens no more streams,
            # which it need not have said (section 6.8); and what nobody knows (section 4.1).
            self._nuisances.spend()
        else:
            handle(self, flags, number, payload)

    def _on_rst_stream(self, _flags: int, number: int, payload: memoryview) -> None:
        """Take the end of a stream (section 6.4)."""
        if number > self._last_stream:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"There is no stream {number} to reset.")
        stream = self.streams.get(number)
        if stream is None:
            self._nuisances.spend()
            return
        # CVE-2023-44487: calls that are begun only to be cancelled.
        self._resets.spend()
        code = int.from_bytes(payload, "big")
        self._forget(stream, ErrorCode(code) if code in _CODES else ErrorCode.INTERNAL_ERROR)

    def _on_settings(self, flags: int, _number: int, payload: memoryview) -> None:
        """Take what the client says of itself (section 6.5); its table and pushes are nothing to us."""
        if flags & Flag.ACK:
            if self._is_acknowledged:
                self._nuisances.spend()
            self._is_acknowledged = True
            return
        self._nuisances.spend()
        # The last of each counts (section 6.5.3), and no frame changes all windows more than once.
        for key, value in dict(read_settings(payload)).items():
            if key == Setting.MAX_FRAME_SIZE:
                self._out.allow_frames(value)
            elif key == Setting.INITIAL_WINDOW_SIZE:
                self._change_windows(value)
        self._out.write(SETTINGS_ACK)
        self._pump()

    def _change_windows(self, initial: int) -> None:
        # Section 6.9.2: it changes all windows by as much, which may make them negative.
        change, self._initial_window = initial - self._initial_window, initial
        for stream in self.streams.values():
            stream.send_window += change
            if stream.send_window > MOST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.")
            self._out.resume(stream)

    def _on_ping(self, flags: int, _number: int, payload: memoryview) -> None:
        """Take a ping, or what answers one (section 6.7)."""
        if not flags & Flag.ACK:
            self._leaving.take_ping(bytes(payload))
        elif not self._leaving.take_answer(bytes(payload), self._last_stream):
            self._nuisances.spend()

    def _on_window_update(self, _flags: int, number: int, payload: memoryview) -> None:
        """Take leave to send more (section 6.9)."""
        credit = int.from_bytes(payload, "big") & MOST_WINDOW
        if number == 0:
            if credit == 0:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A window grows by nothing.")
            self._out.window += credit
            if self._out.window > MOST_WINDOW:
                raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, "The connection's window is too large.")
            if not self._out.has_waiting:
                self._nuisances.spend()
            self._pump()
            return
        stream = self.streams.get(number)
        if stream is None:
            if number > self._last_stream:
                raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"There is no stream {number}.")
            # Section 6.9: it may have been under way as the stream was closed.
            self._nuisances.spend()
            return
        if credit == 0:
            raise StreamFault(ErrorCode.PROTOCOL_ERROR, "A window grows by nothing.")
        if not stream.unsent:
            self._nuisances.spend()
        stream.send_window += credit
        if stream.send_window > MOST_WINDOW:
            raise StreamFault(ErrorCode.FLOW_CONTROL_ERROR, "A window is too large.")
        if stream.unsent:
            self._out.resume(stream)
            self._pump()

    def abandon(self) -> None:
        """End all streams: nobody hears of them any more."""
        # It knows whoever owns this connection: such a circle would wait for the collector.
        self._accept = _accept_nothing
        super().abandon()

    @property
    def is_greeted(self) -> bool:
        """Return whether the client began as section 3.4 asks for."""
        return self._reader.has_settings


# By kind (section 6). Not of each connection: bound methods would be circles.
_HANDLERS: Final = {
    Kind.RST_STREAM: Connection._on_rst_stream,
    Kind.SETTINGS: Connection._on_settings,
    Kind.PING: Connection._on_ping,
    Kind.WINDOW_UPDATE: Connection._on_window_update,
}


def _accept_nothing(_stream: Stream, _block: Block) -> None:
    """Stand in on a connection that is over."""
