"""What goes out on a connection, as far as windows and the socket reach (RFC 9113, section 6.9)."""

from collections.abc import Callable, Iterator
from typing import Final

from flyweight.server.wire.frames import INITIAL_WINDOW, LEAST_MAX_FRAME_BYTES, Flag, Kind, frame
from flyweight.server.wire.streams import Stream

# What may wait for the socket before streams wait instead: twice what a socket takes at once.
_MOST_UNSENT_BYTES: Final = 256 << 10
# What may wait for the socket in all: beyond the former only answers to frames that ask for one.
_MOST_UNSENT_ANSWERS_BYTES: Final = 1 << 20
# A frame of ours, whatever size the client allows: streams take turns by frames.
_LARGEST_FRAME_BYTES: Final = 64 << 10

_HEADERS: Final = bytes((Kind.HEADERS, Flag.END_HEADERS))
_DATA: Final = bytes((Kind.DATA, Flag.NONE))
_TRAILERS: Final = bytes((Kind.HEADERS, Flag.END_HEADERS | Flag.END_STREAM))


class Outgoing:
    """The frames that wait for the socket, and the streams that wait for their turn.

    Attributes:
        window: what all streams together may send.
        waiting_bytes: what streams have to send and may not yet.
        has_sent: whether headers or data were put out since somebody last set it to False.
        is_closed: whether the connection is over, so that nothing more is put out.
    """

    def __init__(self) -> None:
        self.window = INITIAL_WINDOW
        self.has_sent = self.is_closed = False
        self._frame_bytes = LEAST_MAX_FRAME_BYTES
        self._parts: list[bytes | memoryview] = []
        self._bytes = self.waiting_bytes = 0
        # In order of their turns.
        self._waiting: dict[int, Stream] = {}

    def __bool__(self) -> bool:
        """Return whether there is something to send."""
        return bool(self._parts)

    @property
    def is_too_much(self) -> bool:
        """Whether more waits than a client can ask for that reads what it is sent."""
        return self._bytes > _MOST_UNSENT_ANSWERS_BYTES

    def allow_frames(self, size: int) -> None:
        """Note how large the client lets frames be."""
        self._frame_bytes = min(size, _LARGEST_FRAME_BYTES)

    def write(self, octets: bytes | memoryview) -> None:
        """Put out bytes that wait for no window; after the end, none."""
        if self.is_closed:
            return
        self._parts.append(octets)
        self._bytes += len(octets)

    def take(self) -> bytes:
        """Return what is to be sent now; `note_sent` says how much of it was."""
        parts, self._parts = self._parts, []
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    def note_sent(self, size: int) -> None:
        """Note how many of the bytes that were taken the socket took."""
        self._bytes -= size

    def write_headers(self, stream: Stream, block: bytes) -> None:
        """Put out a header block that begins an answer."""
        self.has_sent = True
        self.write(frame(Kind.HEADERS, Flag.END_HEADERS, stream.number, block))

    def answer(self, stream: Stream, headers: bytes, octets: bytes, trailers: bytes, prefix: bytes) -> bool:
        """Put out a whole answer in one go; tell whether the windows allow it, as they nearly always do."""
        size = len(prefix) + len(octets)
        if (
            size > self.window
            or size > stream.send_window
            or size > self._frame_bytes
            or self._bytes >= _MOST_UNSENT_BYTES
        ):
            return False
        self.window -= size
        self.has_sent = True
        number = stream.number.to_bytes(4, "big")
        self.write(
            b"".join(
                (
                    *(len(headers).to_bytes(3, "big"), _HEADERS, number, headers),
                    *(size.to_bytes(3, "big"), _DATA, number, prefix, octets),
                    *(len(trailers).to_bytes(3, "big"), _TRAILERS, number, trailers),
                )
            )
        )
        return True

    def add(self, stream: Stream, octets: bytes, on_sent: Callable[[], None] | None) -> None:
        """Let data wait for its turn; `pump` gives it that."""
        stream.unsent.append((memoryview(octets), on_sent))
        self.waiting_bytes += len(octets)
        self._waiting[stream.number] = stream

    def resume(self, stream: Stream) -> None:
        """Let a stream take turns again, its window being larger now."""
        if stream.unsent:
            self._waiting[stream.number] = stream

    def forget(self, stream: Stream) -> None:
        """Drop what waits of a stream."""
        self.waiting_bytes -= sum(len(view) for view, _ in stream.unsent)
        stream.unsent.clear()
        self._waiting.pop(stream.number, None)

    @property
    def has_waiting(self) -> bool:
        """Whether streams wait for their turn."""
        return bool(self._waiting)

    def pump(self) -> Iterator[Stream]:
        """Put out a frame of each stream in turn, until the windows or the socket are full.

        Gives the stream of each frame that was put out. Once a stream's data is, its trailers may follow.
        """
        waiting = self._waiting
        while waiting and self.window > 0 and self._bytes < _MOST_UNSENT_BYTES:
            number = next(iter(waiting))
            stream = waiting.pop(number)
            room = min(self.window, stream.send_window, self._frame_bytes)
            view, on_sent = stream.unsent[0]
            if room <= 0 and view:
                # A larger window of its own lets it resume.
                continue
            part = view[:room]
            self.window -= len(part)
            stream.send_window -= len(part)
            self.waiting_bytes -= len(part)
            self.has_sent = True
            self.write(len(part).to_bytes(3, "big") + _DATA + number.to_bytes(4, "big"))
            self.write(part)
            if len(part) < len(view):
                stream.unsent[0] = (view[room:], on_sent)
            else:
                stream.unsent.popleft()
                if on_sent is not None:
                    on_sent()
            # Whoever was told may have ended the stream.
            if not stream.is_closed:
                self.resume(stream)
                yield stream
