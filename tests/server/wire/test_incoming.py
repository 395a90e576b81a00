"""Frames out of bytes: data of several streams in turns, however it is cut."""

from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.wire.frames import PREFACE, Flag, Kind, frame, settings
from flyweight.server.wire.incoming import FrameReader


class Notes:
    """Takes frames, and writes down what each stream was given."""

    is_closing = False

    def __init__(self) -> None:
        self.data: dict[int, bytes] = {}
        self.padding: dict[int, int] = {}
        self.ended: list[int] = []

    def take_data(
        self, number: int, payloads: Sequence[memoryview], size: int, padding: int, *, is_end: bool
    ) -> None:
        octets = b"".join(payloads)
        assert len(octets) == size
        assert number not in self.ended
        self.data[number] = self.data.get(number, b"") + octets
        self.padding[number] = self.padding.get(number, 0) + padding
        if is_end:
            self.ended.append(number)

    def take_frame(self, kind: int, flags: int, number: int, payload: memoryview) -> None:
        pass


FRAMES = st.lists(
    st.tuples(st.sampled_from([1, 3, 5]), st.binary(max_size=40), st.integers(-1, 5), st.booleans()),
    max_size=30,
)


@given(FRAMES, st.lists(st.integers(1, 200), max_size=30))
def test_data_of_streams_in_turns_is_each_streams_own(frames: Any, cuts: list[int]) -> None:
    octets, expected, ended = PREFACE + settings({}), Notes(), set[int]()
    for number, payload, padding, is_end in frames:
        if number in ended:
            continue
        flags, content = (Flag.END_STREAM if is_end else 0), payload
        if padding >= 0:
            flags, content = flags | Flag.PADDED, bytes([padding]) + payload + bytes(padding)
        octets += frame(Kind.DATA, flags, number, content)
        bare = memoryview(payload)
        expected.take_data(number, (bare,), len(bare), len(content) - len(payload), is_end=is_end)
        ended |= {number} if is_end else set()
    reader, found, at = FrameReader(8192), Notes(), 0
    for cut in [*cuts, len(octets)]:
        reader.read(octets[at : at + cut], found)  # type: ignore[arg-type]
        at += cut
    assert {key: value for key, value in found.data.items() if value} == {
        key: value for key, value in expected.data.items() if value
    }
    assert {key for key, count in found.padding.items() if count} == {
        key for key, count in expected.padding.items() if count
    }
    assert sum(found.padding.values()) == sum(expected.padding.values())
    assert found.ended == expected.ended
