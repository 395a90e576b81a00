"""HTTP/2 frames (RFC 9113, sections 4 and 6): how their bytes are laid out, and nothing of what they mean."""

from enum import IntEnum
from typing import Final

# RFC 9113, section 3.4: what a client says first.
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# Section 4.1.
HEADER_BYTES: Final = 9
# Section 4.2: the largest frame that everybody takes; larger ones must be agreed on.
LEAST_MAX_FRAME_BYTES: Final = 1 << 14
MOST_MAX_FRAME_BYTES: Final = (1 << 24) - 1
# Section 6.9.1.
MOST_WINDOW: Final = (1 << 31) - 1
# Section 4.1: streams are numbered by 31 bits.
MOST_STREAM: Final = (1 << 31) - 1
# Section 6.5.2.
INITIAL_WINDOW: Final = (1 << 16) - 1
STREAM_BITS: Final = (1 << 31) - 1


class Kind:
    """What a frame is (section 6). Plain numbers: looking at an enumeration's members costs more."""

    DATA: Final = 0
    HEADERS: Final = 1
    PRIORITY: Final = 2
    RST_STREAM: Final = 3
    SETTINGS: Final = 4
    PUSH_PROMISE: Final = 5
    PING: Final = 6
    GOAWAY: Final = 7
    WINDOW_UPDATE: Final = 8
    CONTINUATION: Final = 9


class Flag:
    """Flags, plain numbers too; what a bit means depends on the kind (section 6)."""

    NONE: Final = 0
    ACK: Final = 0x1
    END_STREAM: Final = 0x1
    END_HEADERS: Final = 0x4
    PADDED: Final = 0x8
    PRIORITY: Final = 0x20


class Setting(IntEnum):
    """What the ends tell each other about themselves (section 6.5.2)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13


class StreamFault(Exception):  # noqa: N818 - no Error: it ends a stream, and is the other end's
    """What the other end did wrong on one stream; it ends that stream (section 5.4.2)."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


class ConnectionFault(Exception):  # noqa: N818 - no Error: it ends a connection, and is the other end's
    """What the other end did wrong to the connection as a whole; it ends the connection (section 5.4.1)."""

    def __init__(self, code: ErrorCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return the bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(values: dict[Setting, int]) -> bytes:
    """Return the bytes of a SETTINGS frame (section 6.5)."""
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in values.items())
    return frame(Kind.SETTINGS, Flag.NONE, 0, payload)


SETTINGS_ACK: Final = frame(Kind.SETTINGS, Flag.ACK, 0)


def rst_stream(stream: int, code: ErrorCode) -> bytes:
    """Return the bytes of a RST_STREAM frame (section 6.4)."""
    return frame(Kind.RST_STREAM, Flag.NONE, stream, code.to_bytes(4, "big"))


def window_update(stream: int, credit: int) -> bytes:
    """Return the bytes of a WINDOW_UPDATE frame (section 6.9); stream 0 is the connection."""
    return frame(Kind.WINDOW_UPDATE, Flag.NONE, stream, credit.to_bytes(4, "big"))


def goaway(last_stream: int, code: ErrorCode, sentence: str = "") -> bytes:
    """Return the bytes of a GOAWAY frame (section 6.8)."""
    payload = last_stream.to_bytes(4, "big") + code.to_bytes(4, "big") + sentence.encode()
    return frame(Kind.GOAWAY, Flag.NONE, 0, payload)


def without_padding(flags: int, payload: memoryview) -> memoryview:
    """Return what a DATA or HEADERS frame holds besides its padding (sections 6.1 and 6.2).

    Raises:
        ConnectionFault: there is more padding than frame.
    """
    if not flags & Flag.PADDED:
        return payload
    if not payload:
        raise ConnectionFault(ErrorCode.FRAME_SIZE_ERROR, "A padded frame has no room for its padding.")
    length = payload[0]
    if length >= len(payload):
        raise ConnectionFault(ErrorCode.PROTOCOL_ERROR, "There is more padding than frame.")
    return payload[1 : len(payload) - length]
