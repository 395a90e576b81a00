"""A lane: a pair of connected sockets, and room for large tensors that both ends have mapped.

One run at a time goes through a lane: a packet there, a packet back. So nothing is matched, sorted or locked
on the way, and whoever waits for the answer waits in the kernel, without the interpreter lock.

    head | layout | tensors            in the packet, up to `LARGEST_PACKET_BYTES`
    head | layout                      and the tensors in the mapped room, where they are larger

SOCK_SEQPACKET keeps packets whole (unix(7)): one call sends or takes one, and what is cut short or too long
is seen by its length.
"""

import mmap
import socket
from collections.abc import Mapping
from struct import Struct
from typing import Final, NamedTuple

import numpy as np

from flyweight.server.errors import InvalidRequest
from flyweight.server.runtime.process.faults import LaneClosed, PacketFault
from flyweight.server.runtime.process.layouts import ALIGNMENT, Layout, Layouts, Tensor, has_code
from flyweight.server.runtime.process.room import Half
from flyweight.server.runtime.process.texts import join_texts, split_texts
from flyweight.server.runtime.seam import Array

# kind, whether the tensors are in the mapped room, bytes of the layout, number, moment, bytes of the tensors
_HEAD: Final = Struct("<HHIQdQ")

RUN: Final = 1
ANSWER: Final = 2
# Its one "tensor" is the sentence, under the name of the error's class.
FAILURE: Final = 3
# A run for somebody who gives way.
RUN_ASIDE: Final = 4

# Up to here a packet costs no more than the room (benchmarks/hop.py: equal at 12 to 25 KB, a quarter more at
# 50 KB). A packet must fit the kernel's default for a socket's buffer in any case, 212,992 bytes with its own
# share; as there is one at a time in a lane, nobody ever waits to send.
LARGEST_PACKET_BYTES: Final = 16 * 1024

_GAP: Final = bytes(ALIGNMENT)


class Message(NamedTuple):
    """What came through a lane.

    `moment` is a run's deadline (monotonic seconds, infinity for none) or the seconds that a run took. Arrays
    of numbers are views that are valid until the next packet is taken.
    """

    kind: int
    number: int
    moment: float
    wanted: tuple[str, ...]
    arrays: dict[str, Array]
    mapped_bytes: int


class Lane:
    """One end of a lane, used by one thread at a time; it writes the room's `outgoing` half."""

    def __init__(self, connected: socket.socket, outgoing: Half, incoming: Half) -> None:
        self._socket = connected
        self._outgoing = outgoing
        self._incoming = incoming
        # Anonymous pages of its own: aligned, and no more resident than the largest packet that came.
        self._buffer = mmap.mmap(-1, LARGEST_PACKET_BYTES)
        self._view = memoryview(self._buffer)
        self._layouts = Layouts(_HEAD.size)

    def send(
        self, kind: int, number: int, moment: float, arrays: Mapping[str, Array], wanted: tuple[str, ...] = ()
    ) -> int:
        """Send a packet; return how many bytes of it lie in the room.

        Raises:
            LaneClosed: nobody takes it.
            TooLarge: the tensors do not fit the room; nothing was sent.
            InvalidRequest: an array is of a type that no model takes; nothing was sent.
        """
        arrays, text_shapes = _prepare(arrays)
        if text_shapes:
            layout = self._layouts.with_texts(arrays, text_shapes, wanted)
        else:
            layout = self._layouts.of_arrays(arrays, wanted)
        payload_bytes = layout.payload_bytes
        is_mapped = _HEAD.size + len(layout.encoded) + payload_bytes > LARGEST_PACKET_BYTES
        head = _HEAD.pack(kind, is_mapped, len(layout.encoded), number, moment, payload_bytes)
        parts: list[bytes | memoryview] = [head, layout.encoded]
        if is_mapped:
            self._outgoing.write(layout, arrays)
        else:
            _append(parts, layout, arrays)
        try:
            self._socket.sendmsg(parts)
        except OSError as error:
            raise LaneClosed(str(error)) from error
        return payload_bytes if is_mapped else 0

    def receive(self) -> Message:
        """Wait for a packet and take it.

        Raises:
            LaneClosed: the other end is gone.
            PacketFault: it is no packet.
        """
        try:
            taken = self._socket.recv_into(self._buffer)
        except OSError as error:
            raise LaneClosed(str(error)) from error
        if not taken:
            raise LaneClosed("the other end is closed")
        if taken < _HEAD.size:
            raise PacketFault(f"a packet of {taken} bytes is shorter than its head")
        kind, is_mapped, layout_bytes, number, moment, payload_bytes = _HEAD.unpack_from(self._buffer)
        start = _HEAD.size + layout_bytes
        layout = self._layouts.read(bytes(self._view[_HEAD.size : start]))
        if layout.payload_bytes != payload_bytes or taken != start + (0 if is_mapped else payload_bytes):
            raise PacketFault(f"a packet of {taken} bytes says that it has {start} and {payload_bytes}")
        if not is_mapped:
            source, base = self._buffer, start
        else:
            source, base = self._incoming.content(payload_bytes)
        try:
            arrays = {tensor.name: _array_of(tensor, source, base) for tensor in layout.tensors}
        except ValueError as error:
            # More axes than numpy has, or an empty tensor with absurd lengths.
            raise PacketFault(str(error)) from error
        return Message(kind, number, moment, layout.wanted, arrays, payload_bytes if is_mapped else 0)

    def shrink(self, sent_bytes: int, taken_bytes: int) -> None:
        """Give back what a run used of the room beyond what a lane keeps."""
        self._outgoing.shrink(sent_bytes)
        self._incoming.shrink(taken_bytes)

    def close(self) -> None:
        """Close this end; the other is told."""
        self._socket.close()


def _prepare(arrays: Mapping[str, Array]) -> tuple[Mapping[str, Array], dict[str, tuple[int, ...]]]:
    """Return the arrays as they travel, and the shapes of those that were text."""
    if all(has_code(array.dtype) and array.flags.c_contiguous for array in arrays.values()):
        return arrays, {}
    texts = {name: array.shape for name, array in arrays.items() if array.dtype.kind in "OSU"}
    return {
        name: join_texts(array) if name in texts else _numbers(name, array) for name, array in arrays.items()
    }, texts


def _numbers(name: str, array: Array) -> Array:
    little = array.dtype.newbyteorder("<")
    if not has_code(little):
        raise InvalidRequest(f"The tensor {name!r} is of the type {array.dtype}, which no model takes.")
    return array.astype(little, order="C", copy=False)


def _append(parts: list[bytes | memoryview], layout: Layout, arrays: Mapping[str, Array]) -> None:
    """Append the tensors, and what lies between them."""
    end = 0
    for tensor, array in zip(layout.tensors, arrays.values(), strict=True):
        if tensor.offset > end:
            parts.append(_GAP[: tensor.offset - end])
        if tensor.size_bytes:
            parts.append(array.data)
        end = tensor.offset + tensor.size_bytes


def _array_of(tensor: Tensor, source: mmap.mmap, base: int) -> Array:
    if tensor.is_text:
        block: Array = np.ndarray((tensor.size_bytes,), np.uint8, source, base + tensor.offset)
        return split_texts(block, tensor.shape)
    return np.ndarray(tensor.shape, tensor.dtype, source, base + tensor.offset)
