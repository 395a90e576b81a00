"""The half of a connection that answers: streams, what they send, and how they and the connection end.

Section numbers are those of RFC 9113.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from flyweight.server.wire.floods import Allowance
from flyweight.server.wire.frames import ErrorCode, Flag, Kind, frame, rst_stream, window_update
from flyweight.server.wire.leaving import Leaving
from flyweight.server.wire.outgoing import Outgoing
from flyweight.server.wire.streams import STREAM_WINDOW, Stream

# Streams that were ended here and of which frames may still be under way.
_MOST_REMEMBERED: Final = 256
# The largest burst of an honest client, many times: of settings, of calls that it cancels.
_BURST: Final = 1000
_PER_SECOND: Final = 100.0


class Answering:
    """What `Connection` is but for what comes in.

    Attributes:
        streams: that are open, by number.
        is_closing: whether the connection is over, but for what is still to be sent.
    """

    def __init__(self, min_ping_seconds: float) -> None:
        self.streams: dict[int, Stream] = {}
        self.is_closing = False
        self._last_stream = 0
        self._out = Outgoing()
        self._ended_here: deque[int] = deque(maxlen=_MOST_REMEMBERED)
        self._nuisances = Allowance("frames that carry nothing", _BURST, _PER_SECOND)
        self._resets = Allowance("calls that are cancelled at once", _BURST, _PER_SECOND)
        self._leaving = Leaving(self._out, min_ping_seconds)

    def give_back(self, stream: Stream, size: int) -> None:
        """Let the caller send as much more on a stream as was taken from it (section 6.9)."""
        stream.owed += size
        if stream.owed > STREAM_WINDOW // 2 and not stream.is_ended_there:
            self._out.write(window_update(stream.number, stream.owed))
            stream.receive_window += stream.owed
            stream.owed = 0

    def send_headers(self, stream: Stream, block: bytes) -> None:
        """Send the header block that begins an answer (section 8.1)."""
        if not stream.is_closed:
            self._out.write_headers(stream, block)

    def send_data(self, stream: Stream, octets: bytes, on_sent: Callable[[], None] | None = None) -> None:
        """Send data, as far and as soon as the windows reach; `on_sent` is told when all of it is."""
        if stream.is_closed:
            return
        self._out.add(stream, octets, on_sent)
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
        """Send a whole answer, whose data are `prefix` and `octets`."""
        if stream.is_closed:
            return
        if self._out.answer(stream, headers, octets, trailers, prefix):
            self._ended(stream)
            return
        self.send_headers(stream, headers)
        self.send_data(stream, prefix + octets)
        self.send_trailers(stream, trailers)

    def fault(self, number: int, code: ErrorCode) -> None:
        """End a stream with which something was wrong."""
        # CVE-2025-8671: calls that are begun only to have them reset.
        self._resets.spend()
        self.reset(number, code)

    def reset(self, number: int, code: ErrorCode) -> None:
        """End a stream without an answer (section 6.4)."""
        self._out.write(rst_stream(number, code))
        self._ended_here.append(number)
        stream = self.streams.get(number)
        if stream is not None:
            self._forget(stream, code)

    def ping(self) -> None:
        """Ask whether the client is there (section 6.7)."""
        self._leaving.ask()

    def drain(self) -> None:
        """Ask the client to open no more streams (section 6.8); those that are on their way are taken.

        What it sends after it heard of that is refused; whoever calls this may not wait for it: see
        `turn_away`.
        """
        self._leaving.begin()

    def turn_away(self) -> None:
        """Take no more streams, and say which was the last (section 6.8); those that are open go on."""
        self._leaving.tell(self._last_stream)

    def close(self, code: ErrorCode, sentence: str = "") -> None:
        """Say why the connection ends, and end all streams (section 5.4.1)."""
        if not self.is_closing:
            self._leaving.end(self._last_stream, code, sentence)
            self.abandon()

    def abandon(self) -> None:
        """End all streams: nobody hears of them any more."""
        self.is_closing = self._out.is_closed = True
        for stream in [*self.streams.values()]:
            self._forget(stream, ErrorCode.CANCEL)

    def take_output(self) -> bytes:
        """Return what is to be sent now; tell by `note_sent` when it was."""
        return self._out.take()

    @property
    def is_draining(self) -> bool:
        """Return whether streams are refused."""
        return self._leaving.is_told

    @property
    def last_stream(self) -> int:
        """Return the number of the stream that was opened last."""
        return self._last_stream

    @property
    def has_output(self) -> bool:
        """Return whether there is something to send."""
        return bool(self._out)

    def note_sent(self, size: int) -> None:
        """Note how many of the bytes that were taken the socket took; more may follow them."""
        self._out.note_sent(size)
        if self._out.has_waiting:
            self._pump()

    def _pump(self) -> None:
        for stream in self._out.pump():
            # A client says that it read, which costs us no more than what it read.
            self._nuisances.earn()
            if not stream.unsent and stream.trailers is not None:
                self._end_here(stream)

    def _end_here(self, stream: Stream) -> None:
        assert stream.trailers is not None
        flags = Flag.END_HEADERS | Flag.END_STREAM
        self._out.write(frame(Kind.HEADERS, flags, stream.number, stream.trailers))
        self._ended(stream)

    def _ended(self, stream: Stream) -> None:
        """Note that everything was sent on a stream."""
        if stream.is_closed:
            return
        self._resets.earn()
        # gRPC's core opens each stream's window once before it is answered, and the connection's at times.
        self._nuisances.earn(2.0)
        self._out.has_sent = True
        if not stream.is_ended_there:
            # Section 8.1: the client need not send the rest.
            self._out.write(rst_stream(stream.number, ErrorCode.NO_ERROR))
            self._ended_here.append(stream.number)
        self._forget(stream, None)

    def _forget(self, stream: Stream, code: ErrorCode | None) -> None:
        if stream.is_closed:
            return
        stream.is_closed = True
        if stream.unsent:
            self._out.forget(stream)
        del self.streams[stream.number]
        listener, stream.listener = stream.listener, None
        if listener is not None:
            listener.on_close(code)
