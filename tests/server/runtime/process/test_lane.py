import os
import socket
import struct
from collections.abc import Iterator

import numpy as np
import pytest

from flyweight.server.errors import InvalidRequest
from flyweight.server.runtime.process import room as room_module
from flyweight.server.runtime.process.faults import LaneClosed, PacketFault, TooLarge
from flyweight.server.runtime.process.lane import LARGEST_PACKET_BYTES, RUN, Lane
from flyweight.server.runtime.process.room import HALF_BYTES, KEPT_BYTES, Room


class Ends:
    """Both ends of a lane in one process, and the sockets under them."""

    def __init__(self) -> None:
        self.room = Room.create(1)
        self.sockets = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        there, back = self.room.towards_worker(0), self.room.towards_server(0)
        self.ours, self.theirs = Lane(self.sockets[0], there, back), Lane(self.sockets[1], back, there)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()
        self.room.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.close()


@pytest.mark.parametrize(
    "floats", [0, 1, LARGEST_PACKET_BYTES // 4 - 100, LARGEST_PACKET_BYTES // 4, 1 << 20]
)
def test_tensors_of_any_size_arrive_with_their_neighbours(ends: Ends, floats: int) -> None:
    arrays = {
        "odd": np.arange(3, dtype=np.uint8),
        "x": np.arange(floats, dtype=np.float32),
        "words": np.array([[b"a"], [b"bc"]], object),
        "scalar": np.array(7, np.int64),
    }
    mapped_bytes = ends.ours.send(RUN, 9, 1.5, arrays, ("y",))
    message = ends.theirs.receive()
    assert (message.kind, message.number, message.moment, message.wanted) == (RUN, 9, 1.5, ("y",))
    assert message.mapped_bytes == mapped_bytes
    assert (mapped_bytes > 0) == (floats >= LARGEST_PACKET_BYTES // 4)
    for name, array in arrays.items():
        np.testing.assert_array_equal(message.arrays[name], array)
        assert message.arrays[name].dtype == array.dtype


def test_big_endian_numbers_are_turned_and_other_types_refused(ends: Ends) -> None:
    ends.ours.send(RUN, 1, 0.0, {"x": np.arange(3, dtype=">i4")})
    assert ends.theirs.receive().arrays["x"].tolist() == [0, 1, 2]
    with pytest.raises(InvalidRequest, match="'x' is of the type complex64"):
        ends.ours.send(RUN, 1, 0.0, {"x": np.zeros(3, np.complex64)})


def test_the_end_of_the_other_is_seen_from_both_sides(ends: Ends) -> None:
    ends.theirs.close()
    with pytest.raises(LaneClosed):
        ends.ours.receive()
    with pytest.raises(LaneClosed):
        ends.ours.send(RUN, 1, 0.0, {})


@pytest.mark.parametrize(
    "packet",
    [
        b"x",
        b"\xff" * 32,
        b"\xff" * 4096,
        bytes(32),
        # No tensors, and a tail that nobody announced.
        struct.pack("<HHIQdQ", 2, 0, 32, 1, 0.0, 0) + bytes(33),
        # A layout longer than the packet.
        struct.pack("<HHIQdQ", 2, 0, 1 << 31, 1, 0.0, 0) + bytes(32),
        # More in the room than there is room.
        struct.pack("<HHIQdQ", 2, 1, 32, 1, 0.0, 1 << 40) + bytes(32),
        bytes(LARGEST_PACKET_BYTES + 1),
    ],
)
def test_what_is_no_packet_is_a_fault(ends: Ends, packet: bytes) -> None:
    ends.sockets[0].send(packet)
    with pytest.raises(PacketFault):
        ends.theirs.receive()


def test_random_bytes_are_a_fault_or_a_packet(ends: Ends) -> None:
    ends.ours.send(RUN, 1, 0.0, {"x": np.arange(6, dtype=np.int16), "w": np.array([b"ab"], object)}, ("y",))
    good = ends.sockets[1].recv(4096)
    random = np.random.default_rng(0)
    faults = 0
    for _ in range(2000):
        damaged = bytearray(good)
        damaged[random.integers(len(good))] = random.integers(256)
        ends.sockets[0].send(
            bytes(damaged[: random.integers(1, len(good) + 1)] if random.random() < 0.3 else damaged)
        )
        try:
            ends.theirs.receive()
        except PacketFault:
            faults += 1
    assert faults > 500


def test_nobody_can_shorten_the_room(ends: Ends) -> None:
    """Reading what was cut off would end the process that reads (SIGBUS)."""
    with pytest.raises(PermissionError):
        os.ftruncate(ends.room.handle, 4096)


def test_tensors_that_do_not_fit_the_room_are_not_sent(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room_module, "HALF_BYTES", 1 << 16)
    with pytest.raises(TooLarge, match=r"1,048,576 bytes where at most 65,536 fit"):
        ends.ours.send(RUN, 1, 0.0, {"x": np.zeros(1 << 20, np.uint8)})


def test_what_a_large_run_used_goes_back_to_the_kernel(ends: Ends) -> None:
    size = KEPT_BYTES + (8 << 20)
    sent = ends.ours.send(RUN, 1, 0.0, {"x": np.ones(size, np.uint8)})
    assert ends.theirs.receive().arrays["x"].all()
    assert os.fstat(ends.room.handle).st_blocks * 512 >= size
    ends.ours.shrink(sent, 0)
    assert os.fstat(ends.room.handle).st_blocks * 512 <= KEPT_BYTES + 4096
    assert os.fstat(ends.room.handle).st_size == 2 * HALF_BYTES
