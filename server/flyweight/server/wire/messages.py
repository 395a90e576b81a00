"""gRPC's messages, cut out of a stream's data however that comes (Length-Prefixed-Message).

Each byte is copied once, to its place in the message; source: gRPC's doc/PROTOCOL-HTTP2.md.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np

from flyweight.server.errors import Code
from flyweight.server.rpc.call import Body, Failure
from flyweight.server.rpc.large import LARGE_BYTES

# A flag and a length.
PREFIX_BYTES: Final = 5
# A message's tensors come last in it, and their lengths are multiples of this as a rule: with its end on such
# a boundary they can be read where they are.
_BOUNDARY_BYTES: Final = 64
# Of zlib, the quickest: tensors gain next to nothing by a longer look, and the model waits for the processor.
_LEVEL: Final = 1


class Refused(Exception):  # noqa: N818 - no Error: it is the caller's message that ends the call
    """A message cannot be taken; the call is to end with `failure`."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.sentence)
        self.failure = failure


class Message(NamedTuple):
    """A message as it came: unpacked it may be a thousand times larger, so that waits until it is read."""

    octets: Body
    is_packed: bool = False


class MessageReader:
    """Reads the messages of one call.

    Args:
        most_bytes: of one message, packed or not.
        window_bits: of zlib, to unpack messages with; 0 where the call does not say how they are packed.
    """

    __slots__ = ("_filled", "_is_packed", "_most_bytes", "_place", "_prefix", "_window_bits")

    def __init__(self, most_bytes: int, window_bits: int) -> None:
        self._most_bytes = most_bytes
        self._window_bits = window_bits
        self._prefix = b""
        self._place: memoryview | None = None
        self._filled = 0
        self._is_packed = False

    @property
    def gathered_bytes(self) -> int:
        """How much is there of a message that has not ended."""
        return self._filled if self._place is not None else 0

    @property
    def missing_bytes(self) -> int:
        """How much is to come of a message that has begun."""
        return len(self._place) - self._filled if self._place is not None else 0

    @property
    def is_within(self) -> bool:
        """Whether a message has begun that has not ended."""
        return bool(self._prefix) or self._place is not None

    def feed(self, payloads: Iterable[memoryview]) -> "Iterator[Message]":
        """Take data, and give the messages that end in it.

        Raises:
            Refused: a message is too large, or packed in no way that the call names.
        """
        for payload in payloads:
            at, end = 0, len(payload)
            place, filled = self._place, self._filled + end
            if place is not None and filled < len(place):
                # As nearly always in a large one: more of it.
                place[self._filled : filled] = payload
                self._filled = filled
                continue
            while at < end:
                if self._place is None:
                    missing = PREFIX_BYTES - len(self._prefix)
                    self._prefix += payload[at : at + missing]
                    at += missing
                    if len(self._prefix) < PREFIX_BYTES:
                        break
                    self._place = self._begin()
                part = payload[at : at + len(self._place) - self._filled]
                at += len(part)
                filled = self._filled + len(part)
                self._place[self._filled : filled] = part
                self._filled = filled
                if filled == len(self._place):
                    yield self._end(self._place)

    def _begin(self) -> memoryview:
        """Return the place of the message that the prefix announces; its memory is taken as it fills."""
        prefix, self._prefix = self._prefix, b""
        self._is_packed = bool(prefix[0])
        if self._is_packed and (not self._window_bits or prefix[0] != 1):
            raise Refused(Failure(Code.INTERNAL, "A message is packed, and the call does not say how."))
        length = int.from_bytes(prefix[1:], "big")
        if length > self._most_bytes:
            raise Refused(too_large(self._most_bytes))
        before = -length % _BOUNDARY_BYTES
        self._filled = 0
        return np.empty(before + length, np.uint8).data[before:]

    def _end(self, place: memoryview) -> "Message":
        self._place = None
        # A smaller one is cheaper to copy than to look after.
        return Message(place if len(place) >= LARGE_BYTES else bytes(place), is_packed=self._is_packed)


def unpacked(octets: Body, window_bits: int, most_bytes: int) -> bytes:
    """Return what a packed message holds.

    Raises:
        Refused: it holds more than `most_bytes`, or cannot be unpacked.
    """
    unpacker = zlib.decompressobj(window_bits)
    try:
        body = unpacker.decompress(octets, most_bytes + 1)
    except zlib.error:
        body = b""
    if len(body) > most_bytes:
        raise Refused(too_large(most_bytes))
    if not unpacker.eof or unpacker.unused_data:
        raise Refused(Failure(Code.INTERNAL, "A message cannot be unpacked."))
    return body


def too_large(most_bytes: int) -> Failure:
    """Return the refusal of a message that is larger than the setting."""
    return Failure(
        Code.RESOURCE_EXHAUSTED,
        f"The message is larger than the {most_bytes} bytes that are the most (--max-message-megabytes); "
        "send fewer rows in one request.",
    )


def prefix_of(length: int) -> bytes:
    """Return the prefix of a message that is not packed."""
    return b"\x00" + length.to_bytes(4, "big")


def framed(body: bytes) -> bytes:
    """Return a message with its prefix, not packed."""
    return prefix_of(len(body)) + body


def packed(body: bytes) -> bytes:
    """Return a message with its prefix, packed with gzip (RFC 1952) where that makes it smaller."""
    packer = zlib.compressobj(_LEVEL, wbits=16 + zlib.MAX_WBITS)
    octets = packer.compress(body) + packer.flush()
    if len(octets) >= len(body):
        return framed(body)
    return b"\x01" + len(octets).to_bytes(4, "big") + octets
