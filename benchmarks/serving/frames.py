"""One connection of a load generator: gRPC calls as prebuilt HTTP/2 frames (RFC 9113), on asyncio.

Nothing is computed twice: the header block never changes, the body is cut into frames once, and an answer is
read as far as its last header, grpc-status.
"""

import asyncio
import struct
from collections import deque
from collections.abc import Callable
from typing import Final

from benchmarks.serving.hpack import Decoder, UnreadableHeadersError, encode, encode_kept

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 4, 5
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113, section 6.9.2 and 4.2.
DEFAULT_WINDOW: Final = 65_535
SMALLEST_FRAME: Final = 16_384
# The largest window: answers are never held up by ours.
_OUR_WINDOW: Final = (1 << 31) - 1
_TOP_UP_BYTES: Final = 1 << 30
_HEAD: Final = struct.Struct(">IBI")

# The status of a call that has none.
BROKEN: Final = "broken"


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _HEAD.pack(len(payload) << 8 | kind, flags, stream) + payload


def grpc_message(body: bytes) -> bytes:
    """Return a message with gRPC's prefix."""
    return b"\0" + len(body).to_bytes(4, "big") + body


class Connection(asyncio.Protocol):
    """Keeps calls under way until it is told to stop. For the thread of its loop.

    Args:
        authority: the server's address.
        path: of the RPC.
        message: with gRPC's prefix.
        on_answer: is told a stream's number, its grpc-status and how many bytes of data came.
        fresh: every call has a `traceparent` and a `grpc-timeout` of its own: no header block repeats.
    """

    def __init__(
        self,
        authority: str,
        path: str,
        message: bytes,
        on_answer: Callable[[int, str, int], None],
        *,
        fresh: bool = False,
    ) -> None:
        headers = (
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        )
        self._is_fresh = fresh
        # As clients with much to say do: what repeats is said once, and then by numbers.
        self._block, self._again = encode_kept(headers) if fresh else (encode(headers), b"")
        self._message = message
        self._on_answer = on_answer
        self._decoder = Decoder()
        self._input = bytearray()
        self._next_stream = 1
        self._data_bytes: dict[int, int] = {}
        self._statuses: dict[int, str] = {}
        # What of a message could not be sent yet, and the window that its stream has left.
        self._unsent: dict[int, int] = {}
        self._turns: deque[int] = deque()
        self._stream_windows: dict[int, int] = {}
        self._window = DEFAULT_WINDOW
        self._initial_window = DEFAULT_WINDOW
        self._largest_frame = SMALLEST_FRAME
        self._taken_bytes = 0
        self._transport: asyncio.Transport | None = None
        self.ready = asyncio.get_running_loop().create_future()
        self.is_closed = False

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say hello."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = struct.pack(">HI", INITIAL_WINDOW_SIZE, _OUR_WINDOW)
        update = struct.pack(">I", _OUR_WINDOW - DEFAULT_WINDOW)
        transport.write(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, update))

    def connection_lost(self, exc: Exception | None) -> None:
        """End every call that is under way as broken."""
        del exc
        self.is_closed = True
        if not self.ready.done():
            self.ready.set_exception(ConnectionError("the server closed the connection"))
        for stream in list(self._data_bytes):
            self._end(stream, BROKEN)

    def data_received(self, data: bytes) -> None:
        """Cut the bytes into frames."""
        buffer = self._input
        buffer += data
        at, end = 0, len(buffer)
        while end - at >= 9:
            length_and_kind, flags, stream = _HEAD.unpack_from(buffer, at)
            following = at + 9 + (length_and_kind >> 8)
            if following > end:
                break
            self._take(length_and_kind & 0xFF, flags, stream, bytes(buffer[at + 9 : following]))
            at = following
        del buffer[:at]
        self._flush()

    # --- calls ---

    def call(self) -> int:
        """Begin a call, and return its stream's number."""
        stream, self._next_stream = self._next_stream, self._next_stream + 2
        self._data_bytes[stream] = 0
        assert self._transport is not None
        block = self._block
        if self._is_fresh:
            block += encode(_fresh_headers(stream))
            self._block = self._again
        head = frame(HEADERS, END_HEADERS, stream, block)
        size = len(self._message)
        if size <= self._largest_frame and size <= self._window and size <= self._initial_window:
            self._window -= size
            self._transport.write(head + frame(DATA, END_STREAM, stream, self._message))
            return stream
        self._transport.write(head)
        self._unsent[stream] = 0
        self._stream_windows[stream] = self._initial_window
        self._turns.append(stream)
        self._flush()
        return stream

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        """Send what the windows let pass, oldest call first."""
        for _ in range(len(self._turns)):
            if self._window <= 0:
                return
            stream = self._turns.popleft()
            if self._send_more(stream):
                self._turns.append(stream)

    def _send_more(self, stream: int) -> bool:
        """Send what may be sent of a message; tell whether something is left."""
        at, size = self._unsent.get(stream, -1), len(self._message)
        if at < 0:
            return False
        assert self._transport is not None
        window = self._stream_windows[stream]
        while at < size:
            step = min(size - at, self._window, window, self._largest_frame)
            if step <= 0:
                break
            flags = END_STREAM if at + step == size else 0
            self._transport.write(frame(DATA, flags, stream, self._message[at : at + step]))
            at, window, self._window = at + step, window - step, self._window - step
        if at == size:
            del self._unsent[stream], self._stream_windows[stream]
            return False
        self._unsent[stream], self._stream_windows[stream] = at, window
        return True

    # --- frames ---

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == DATA:
            self._take_data(flags, stream, payload)
        elif kind == HEADERS:
            self._take_headers(flags, stream, payload)
        elif kind == RST_STREAM:
            self._end(stream, BROKEN)
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            (step,) = struct.unpack(">I", payload)
            if stream == 0:
                self._window += step
            elif stream in self._stream_windows:
                self._stream_windows[stream] += step
        elif kind == GOAWAY:
            self._transport.close()

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._taken_bytes += len(payload)
        if self._taken_bytes > _TOP_UP_BYTES:
            assert self._transport is not None
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken_bytes)))
            self._taken_bytes = 0
        if stream in self._data_bytes:
            self._data_bytes[stream] += len(payload)
        if flags & END_STREAM:
            self._end(stream, BROKEN)

    def _take_headers(self, flags: int, stream: int, payload: bytes) -> None:
        if flags & (PADDED | PRIORITY) or not flags & END_HEADERS:
            raise UnreadableHeadersError("the server cuts or pads header blocks: use h2load for it")
        for name, value in self._decoder.decode(payload):
            if name == "grpc-status":
                self._statuses[stream] = value
        if flags & END_STREAM:
            self._end(stream, self._statuses.pop(stream, BROKEN))

    def _take_settings(self, payload: bytes) -> None:
        for at in range(0, len(payload), 6):
            key, value = struct.unpack_from(">HI", payload, at)
            if key == INITIAL_WINDOW_SIZE:
                for stream in self._stream_windows:
                    self._stream_windows[stream] += value - self._initial_window
                self._initial_window = value
            elif key == MAX_FRAME_SIZE:
                self._largest_frame = value
        assert self._transport is not None
        self._transport.write(frame(SETTINGS, ACK, 0))
        if not self.ready.done():
            self.ready.set_result(None)

    def _end(self, stream: int, status: str) -> None:
        size = self._data_bytes.pop(stream, None)
        self._unsent.pop(stream, None)
        self._stream_windows.pop(stream, None)
        if size is not None:
            self._on_answer(stream, status, size)


def _fresh_headers(stream: int) -> tuple[tuple[str, str], ...]:
    """Return what is of one call alone: a time-out of half a minute, and a W3C trace context."""
    timeout = f"{30_000_000 - stream % 1_000_000}u"
    return ("grpc-timeout", timeout), ("traceparent", f"00-{stream * 7919:032x}-{stream * 104729:016x}-01")
