"""The work of a graph's layers, and what is left of it."""

import pytest

from flyweight.compressor.passes.prune.graph_channels import inner_channels
from flyweight.compressor.passes.prune.work import DEPTHWISE, Work


def test_multiply_adds_by_hand_and_those_of_depthwise_convolutions_count_more(sketch) -> None:
    wide = sketch.conv("x", 3, 12, 1, 1)
    depthwise = sketch.conv(wide, 1, 12, 3, 3, group=12, strides=[2, 2], pads=[1, 1, 1, 1])
    model = sketch.model(["n", 3, 8, 8], sketch.conv(depthwise, 12, 4, 1, 1))
    work = Work(model, inner_channels(model))
    maker, middle, reader = 64 * 3 * 12, 16 * 9 * 12 * DEPTHWISE, 16 * 12 * 4
    assert work.left({}) == maker + middle + reader == 9984
    # All three are in proportion to the channels.
    assert work.left({wide: 0.25}) == pytest.approx(9984 / 4)
    assert work.left({"other": 0.25}) == 9984


def test_a_layer_shrinks_by_its_inputs_and_its_outputs(sketch) -> None:
    first = sketch.gemm("x", 6, 20)
    second = sketch.gemm(first, 20, 10)
    model = sketch.model(["n", 6], sketch.gemm(second, 10, 5))
    work = Work(model, inner_channels(model))
    assert work.left({}) == 120 + 200 + 50
    assert work.left({first: 0.5, second: 0.2}) == pytest.approx(60 + 20 + 10)


@pytest.mark.parametrize(("length", "places"), [(7, 7), ("length", 1)])
def test_products_work_once_for_each_place_and_unknown_lengths_are_one(length, places, sketch) -> None:
    model = sketch.model(["n", length, 6], sketch.matmul("x", 6, 4))
    assert Work(model, []).left({}) == 24 * places


def test_grouped_convolutions_are_no_depthwise_ones(sketch) -> None:
    model = sketch.model(["n", 4, 5, 5], sketch.conv("x", 2, 6, 3, 3, group=2))
    assert Work(model, []).left({}) == 9 * 2 * 6 * 9
