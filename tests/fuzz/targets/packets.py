"""What a worker process sends that is broken, or not ours: packets in a lane, and its report.

The first byte says which; a packet's tensors may lie in it or in the mapped room, which holds the same bytes.
"""

import atexit
import os
import socket
from functools import cache
from typing import Final
from unittest import mock

import numpy as np

from flyweight.protos.errors import FlyweightError
from flyweight.server.runtime.process import room as room_module
from flyweight.server.runtime.process.child import result_of
from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.process.lane import ANSWER, FAILURE, LARGEST_PACKET_BYTES, Lane
from flyweight.server.runtime.process.room import Room
from flyweight.server.runtime.process.startup import Report
from flyweight.server.runtime.seam import Signature, TensorSpec

REPORT, PACKET = b"\x01", b"\x00"
WANTED: Final = ("y", "z")
# Of the front's run that the packet is taken for an answer to.
NUMBER: Final = 7
ROOM_BYTES: Final = 1 << 16


@cache
def _ends() -> tuple[Room, Lane, socket.socket]:
    room = Room.create(1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        atexit.register(end.close)
    return room, Lane(ours, room.towards_worker(0), room.towards_server(0)), theirs


def check(data: bytes) -> None:
    """Take what a worker sent; anything but a fault or a failure by its name is a bug."""
    if data[:1] == REPORT:
        _check_report(data[1:])
    elif len(data) > 1:
        _check_packet(data[1:][:LARGEST_PACKET_BYTES])


def _check_report(line: bytes) -> None:
    try:
        report = Report.decode(line)
    except PacketFault:
        return
    # What the server goes on with.
    assert isinstance(report.failure, str)
    for spec in (*report.signature.inputs, *report.signature.outputs):
        assert isinstance(spec.name, str)
        assert all(isinstance(length, int) for length in spec.shape)
    assert (report.load_pss_bytes or 0) + (report.base_pss_bytes or 0) >= 0


def _check_packet(packet: bytes) -> None:
    _, lane, worker = _ends()
    worker.send(packet)
    # The room is of 4 GiB, and a packet that says that text fills it is believed: this takes time, no more.
    with mock.patch.object(room_module, "HALF_BYTES", ROOM_BYTES):
        try:
            outputs = result_of(lane.receive(), NUMBER, WANTED)
        except (PacketFault, FlyweightError):
            return
    assert tuple(outputs) == WANTED
    # The next run overwrites what is read from the lane.
    assert all(array.flags.owndata or array.dtype == object for array in outputs.values())


def seeds() -> list[bytes]:
    """Return what a worker that is well sends."""
    report = Report(
        signature=Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),)),
        base_pss_bytes=1,
        load_pss_bytes=2,
    )
    answers = [
        {"y": np.ones((2, 3), np.float32), "z": np.array(4, np.int64)},
        {"y": np.array([[b"a", b"bc"]], object), "z": np.zeros((0, 5), np.int8)},
    ]
    packets = [_sent(ANSWER, arrays) for arrays in answers]
    packets += [
        _sent(FAILURE, {kind: np.frombuffer(b"Too much.", np.uint8)}) for kind in ("RunFailed", "Other")
    ]
    # The second field of the head: the tensors lie in the room.
    mapped = bytearray(packets[0])
    mapped[2] = 1
    reports = [report.encode(), Report(failure="It is no model.").encode()]
    return [*(PACKET + packet for packet in (*packets, bytes(mapped))), *(REPORT + line for line in reports)]


def _sent(kind: int, arrays: dict[str, "np.ndarray[tuple[int, ...], np.dtype[np.generic]]"]) -> bytes:
    room = Room.create(1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lane = Lane(theirs, room.towards_server(0), room.towards_worker(0))
    lane.send(kind, NUMBER, 0.5, arrays)
    packet = ours.recv(LARGEST_PACKET_BYTES)
    for end in (ours, theirs):
        end.close()
    os.close(room.handle)
    return packet
