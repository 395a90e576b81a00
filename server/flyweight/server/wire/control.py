"""The frames that carry no request: their shapes (RFC 9113, sections 6.3 to 6.9), and what settings say."""

from collections.abc import Iterator
from typing import Final

from flyweight.server.wire.frames import (
    LEAST_MAX_FRAME_BYTES,
    MOST_MAX_FRAME_BYTES,
    MOST_WINDOW,
    ConnectionFault,
    ErrorCode,
    Flag,
    Kind,
    Setting,
)

_SIZES: Final = {Kind.PRIORITY: 5, Kind.RST_STREAM: 4, Kind.PING: 8, Kind.WINDOW_UPDATE: 4}
_OF_STREAMS: Final = frozenset({Kind.PRIORITY, Kind.RST_STREAM})
_OF_CONNECTIONS: Final = frozenset({Kind.SETTINGS, Kind.PING, Kind.GOAWAY})
_SETTING_BYTES: Final = 6
# A last stream and a code.
_LEAST_GOAWAY_BYTES: Final = 8


def check_shape(kind: int, flags: int, number: int, size: int) -> None:
    """Look at whose a frame is, and at how large.

    Raises:
        ConnectionFault: a client sends none such, or none of that size. A PRIORITY's size is an error of its
            stream (section 6.3), and any of those may be taken for the connection's (section 5.4.2).
    """
    if kind == Kind.PUSH_PROMISE:
        # Section 8.4.
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A client does not promise.")
    if number and kind in _OF_CONNECTIONS:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A frame of the connection names a stream.")
    if not number and kind in _OF_STREAMS:
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "A frame of a stream names none.")
    if kind == Kind.SETTINGS:
        fits = size == 0 if flags & Flag.ACK else size % _SETTING_BYTES == 0
    elif kind == Kind.GOAWAY:
        fits = size >= _LEAST_GOAWAY_BYTES
    else:
        fits = size == _SIZES.get(kind, size)
    if not fits:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, f"A frame of kind {kind} has {size} bytes.")


def read_settings(payload: memoryview) -> Iterator[tuple[int, int]]:
    """Go through what a SETTINGS frame says, in order; what nobody knows too (section 6.5.2).

    Raises:
        ConnectionFault: a value cannot be.
    """
    for at in range(0, len(payload), _SETTING_BYTES):
        key = int.from_bytes(payload[at : at + 2], "big")
        value = int.from_bytes(payload[at + 2 : at + _SETTING_BYTES], "big")
        if key == Setting.ENABLE_PUSH and value > 1:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "ENABLE_PUSH is 0 or 1.")
        if key == Setting.MAX_FRAME_SIZE and not LEAST_MAX_FRAME_BYTES <= value <= MOST_MAX_FRAME_BYTES:
            raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, f"Frames of {value} bytes cannot be agreed on.")
        if key == Setting.INITIAL_WINDOW_SIZE and value > MOST_WINDOW:
            raise ConnectionFault(ErrorCode.FLOW_CONTROL_ERROR, f"{value} is no window.")
        yield key, value
