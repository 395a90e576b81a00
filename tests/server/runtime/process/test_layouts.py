from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.process.layouts import ALIGNMENT, Layouts, read_layout
from flyweight.server.runtime.process.texts import join_texts, split_texts

NUMBERS = st.sampled_from(["?", "<u1", "<u2", "<u4", "<u8", "<i1", "<i2", "<i4", "<i8", "<f2", "<f4", "<f8"])
ARRAYS = NUMBERS.flatmap(
    lambda dtype: st_numpy.arrays(
        dtype, st_numpy.array_shapes(min_dims=0, min_side=0, max_side=4), fill=st.just(0)
    )
)
NAMES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.dictionaries(NAMES, ARRAYS, max_size=4), st.lists(NAMES, max_size=3))
def test_what_is_read_is_what_was_written(arrays: dict[str, Any], wanted: list[str]) -> None:
    layout = Layouts(32).of_arrays(arrays, tuple(wanted))
    assert read_layout(layout.encoded) == layout
    assert layout.wanted == tuple(wanted)
    assert [(t.name, t.dtype, t.shape, t.size_bytes) for t in layout.tensors] == [
        (name, array.dtype, array.shape, array.nbytes) for name, array in arrays.items()
    ]
    assert (32 + len(layout.encoded)) % ALIGNMENT == 0
    assert all(tensor.offset % ALIGNMENT == 0 for tensor in layout.tensors)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_layout_are_a_fault_and_nothing_else(garbage: bytes) -> None:
    try:
        layout = read_layout(garbage)
    except PacketFault:
        return
    assert layout.payload_bytes >= 0


@given(st.data())
def test_a_damaged_layout_is_a_fault_or_another_that_fits_together(data: st.DataObject) -> None:
    good = Layouts(32).of_arrays({"x": np.zeros((2, 3), np.float32)}, ("y",)).encoded
    position = data.draw(st.integers(0, len(good) - 1))
    damaged = bytearray(good)
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        layout = read_layout(bytes(damaged))
    except PacketFault:
        return
    for tensor in layout.tensors:
        if not tensor.is_text:
            assert int(np.prod(tensor.shape, dtype=object)) * tensor.dtype.itemsize == tensor.size_bytes


def test_a_layout_is_made_once_and_the_number_of_those_that_are_kept_is_bounded() -> None:
    layouts = Layouts(32)
    x = np.zeros((2, 3), np.float32)
    first = layouts.of_arrays({"x": x}, ())
    assert layouts.of_arrays({"x": x + 1}, ()) is first
    assert layouts.read(first.encoded) is layouts.read(bytes(bytearray(first.encoded)))
    for rows in range(1000):
        layouts.of_arrays({"x": np.zeros((rows, 0), np.float32)}, ())
    assert len(layouts._made) <= 256


@given(st_numpy.arrays(object, st_numpy.array_shapes(min_dims=0, min_side=0), elements=st.binary(max_size=9)))
def test_texts_are_split_as_they_were_joined(array: Any) -> None:
    again = split_texts(join_texts(array), array.shape)
    assert again.shape == array.shape
    assert again.tolist() == array.tolist()


def test_text_becomes_utf8() -> None:
    assert split_texts(join_texts(np.array(["é", b"\xff"], object)), (2,)).tolist() == ["é".encode(), b"\xff"]


@given(st.binary(max_size=60), st.lists(st.integers(0, 2**40), max_size=3))
def test_a_block_that_is_no_text_is_a_fault(garbage: bytes, shape: list[int]) -> None:
    try:
        split_texts(np.frombuffer(garbage, np.uint8), tuple(shape))
    except PacketFault:
        return
    count = int(np.prod(shape, dtype=object))
    assert count * 8 <= len(garbage)


@pytest.mark.parametrize("lengths", [[3], [1, 5]])
def test_lengths_that_lead_elsewhere_are_a_fault(lengths: list[int]) -> None:
    block = np.frombuffer(np.array(lengths, "<u8").tobytes() + b"ab", np.uint8)
    with pytest.raises(PacketFault, match="lengths"):
        split_texts(block, (len(lengths),))
