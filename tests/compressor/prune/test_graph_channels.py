"""Which channels a graph could do without, and that every number of them goes with them."""

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.passes.prune.elimination import Remainder
from flyweight.compressor.passes.prune.graph_channels import Channels, inner_channels
from flyweight.compressor.passes.prune.graph_cut import Seen, cut, give_biases
from flyweight.compressor.passes.prune.second_moments import Moments

ROOT = np.float32(2**0.5)
IMAGE, ROW, TOKENS = ["n", 3, 8, 8], ["n", 6], ["n", "length", 6]


def inverted_residual(s) -> tuple[list, str]:
    stream = s.conv("x", 3, 4, 1, 1)
    clip = [s.constant(np.float32(0)), s.constant(np.float32(6))]
    wide = s.node("Clip", s.conv(stream, 4, 12, 1, 1), *clip)
    depthwise = s.conv(wide, 1, 12, 3, 3, group=12, pads=[1, 1, 1, 1])
    narrow = s.conv(s.node("Clip", depthwise, *clip), 12, 4, 1, 1)
    return IMAGE, s.node("Add", stream, narrow)


def perceptron(s) -> tuple[list, str]:
    return ROW, s.gemm(s.node("Relu", s.gemm("x", 6, 12)), 12, 5)


def transposed_perceptron(s) -> tuple[list, str]:
    first = s.node("Gemm", "x", s.weight(12, 6, inputs=6), transB=1, alpha=0.5)
    return ROW, s.node("Gemm", s.node("Tanh", first), s.weight(5, 12, inputs=12), transB=1)


def feed_forward(s) -> tuple[list, str]:
    """Gelu as torch exports it: x / 2 (1 + erf(x / sqrt 2)), on tokens."""
    hidden = s.node("Add", s.matmul("x", 6, 12), s.vector(12))
    inner = s.node("Erf", s.node("Div", hidden, s.constant(ROOT)))
    gate = s.node("Add", inner, s.constant(np.float32(1)))
    gelu = s.node("Mul", s.node("Mul", hidden, gate), s.constant(np.array([0.5], np.float32)))
    return TOKENS, s.node("Add", s.matmul(gelu, 12, 6), "x")


def flattened_maps(s) -> tuple[list, str]:
    maps = s.node("BatchNormalization", s.conv("x", 3, 12, 3, 3), *(s.vector(12) for _ in range(4)))
    pooled = s.node("MaxPool", s.node("Relu", maps), kernel_shape=[2, 2], strides=[2, 2])
    return IMAGE, s.gemm(s.node("Flatten", pooled), 12 * 9, 5)


def pooled_maps(s) -> tuple[list, str]:
    pooled = s.node("GlobalAveragePool", s.node("PRelu", s.conv("x", 3, 12, 3, 3), s.vector(12, 1, 1)))
    return IMAGE, s.gemm(s.node("Reshape", pooled, s.constant(np.array([-1, 12]))), 12, 5)


def reshaped_maps(s) -> tuple[list, str]:
    maps = s.node("Reshape", s.conv("x", 3, 12, 3, 3), s.constant(np.array([0, 432])))
    return IMAGE, s.gemm(maps, 432, 5)


def averaged_maps(s) -> tuple[list, str]:
    maps = s.node("Mul", s.conv("x", 3, 12, 3, 3, strides=[2, 2]), s.vector(1, 12, 1, 1))
    return IMAGE, s.gemm(s.node("ReduceMean", maps, axes=[-1, -2], keepdims=0), 12, 5)


def sound(s) -> tuple[list, str]:
    """Convolutions over one axis."""
    return ["n", 3, 20], s.conv(s.node("Sigmoid", s.conv("x", 3, 12, 5)), 12, 4, 3, dilations=[2])


# Of each the columns a channel has at the reader, and how many tensors lose places.
FOUND: dict[Callable, tuple[int, int]] = {
    inverted_residual: (1, 5),
    perceptron: (1, 3),
    transposed_perceptron: (1, 2),
    feed_forward: (1, 3),
    flattened_maps: (9, 7),
    pooled_maps: (1, 4),
    reshaped_maps: (36, 3),
    averaged_maps: (1, 4),
    sound: (3, 3),
}


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def drawn(shape: list) -> np.ndarray:
    lengths = [length if isinstance(length, int) else 3 for length in shape]
    return np.random.default_rng(5).standard_normal(lengths).astype(np.float32)


def without(model: onnx.ModelProto, channels: Channels, kept: np.ndarray) -> None:
    """Cut channels out and leave the reader's other weights as they were."""
    moments = Moments(channels.width * channels.block), Moments(channels.width * channels.block)
    seen = Seen(channels, *moments)
    columns = (kept[:, None] * channels.block + np.arange(channels.block)).ravel()
    cut(model, [(seen, Remainder(kept, seen.weights[columns]))])


@pytest.mark.parametrize("write", FOUND, ids=lambda write: write.__name__)
def test_channels_inside_are_found(write: Callable, sketch) -> None:
    shape, output = write(sketch)
    (channels,) = inner_channels(sketch.model(shape, output))
    assert channels.width == 12
    assert (channels.block, len(channels.slots)) == FOUND[write]
    assert channels.name == channels.layers()[0]
    assert len(channels.layers()) == 2 + (write is inverted_residual)
    assert len(channels.reshapes) == (write in {pooled_maps, reshaped_maps})


@pytest.mark.parametrize("write", FOUND, ids=lambda write: write.__name__)
def test_without_channels_is_as_if_nobody_read_them(write: Callable, sketch) -> None:
    """The slower way: the reader's weights for them are zeros."""
    shape, output = write(sketch)
    model, deaf = sketch.model(shape, output), sketch.model(shape, output)
    kept, gone = np.array([0, 1, 4, 5, 6, 9, 11]), np.array([2, 3, 7, 8, 10])
    (channels,) = inner_channels(deaf)
    columns = (gone[:, None] * channels.block + np.arange(channels.block)).ravel()
    rows = channels.reader.rows().copy()
    rows[:, columns] = 0
    channels.reader.set_rows(rows)
    (channels,) = inner_channels(model)
    without(model, channels, kept)
    x = drawn(shape)
    expected = run(deaf, x)
    assert run(model, x) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert np.abs(expected).max() > 0.1
    # A second cut finds what the first left, and the shapes that flatten are written once.
    again = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    (channels,) = inner_channels(again)
    assert channels.width == 7
    without(again, channels, np.arange(7))
    assert run(again, x) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def residual_stream(s) -> tuple[list, str]:
    stream = s.node("Relu", s.conv("x", 3, 12, 1, 1))
    return IMAGE, s.conv(s.node("Add", stream, s.conv(stream, 12, 12, 1, 1)), 12, 4, 1, 1)


def two_readers(s) -> tuple[list, str]:
    maps = s.conv("x", 3, 12, 1, 1)
    return IMAGE, s.node("Add", s.conv(maps, 12, 4, 1, 1), s.conv(maps, 12, 4, 1, 1))


def seen_by_callers(s) -> tuple[list, str, str]:
    maps = s.conv("x", 3, 12, 1, 1)
    return IMAGE, s.conv(maps, 12, 4, 1, 1), maps


def joined(s) -> tuple[list, str]:
    maps = s.node("Concat", s.conv("x", 3, 12, 1, 1), "x", axis=1)
    return IMAGE, s.conv(maps, 15, 4, 1, 1)


def softmax(s) -> tuple[list, str]:
    return ROW, s.gemm(s.node("Softmax", s.gemm("x", 6, 12)), 12, 5)


def normalised(s) -> tuple[list, str]:
    hidden = s.node("LayerNormalization", s.matmul("x", 6, 12), s.vector(12), s.vector(12))
    return TOKENS, s.matmul(hidden, 12, 6)


def shared_maker(s) -> tuple[list, str]:
    weight = s.weight(12, 3, 1, 1, inputs=3)
    one, other = (s.node("Conv", each, weight) for each in ("x", s.node("Neg", "x")))
    return IMAGE, s.node("Add", s.conv(one, 12, 4, 1, 1), s.conv(other, 12, 4, 1, 1))


def shared_reader(s) -> tuple[list, str]:
    weight = s.weight(4, 12, 1, 1, inputs=12)
    one, other = (s.node("Conv", s.conv("x", 3, 12, 1, 1), weight) for _ in range(2))
    return IMAGE, s.node("Add", one, other)


def shared_constant(s) -> tuple[list, str]:
    """One vector of factors for two layers."""
    factors = s.vector(12)
    one, other = (s.matmul(s.node("Mul", s.matmul("x", 6, 12), factors), 12, 5) for _ in range(2))
    return ROW, s.node("Add", one, other)


def shared_bias(s) -> tuple[list, str]:
    bias = s.vector(12)
    hidden = [s.node("Gemm", "x", s.weight(6, 12, inputs=6), bias) for _ in range(2)]
    return ROW, s.node("Add", *(s.gemm(each, 12, 5) for each in hidden))


def pads_by_itself(s) -> tuple[list, str]:
    return IMAGE, s.conv(s.conv("x", 3, 12, 1, 1), 12, 4, 3, 3, auto_pad="SAME_UPPER")


def grouped_reader(s) -> tuple[list, str]:
    return IMAGE, s.conv(s.conv("x", 3, 12, 1, 1), 6, 4, 1, 1, group=2)


def grouped_maker(s) -> tuple[list, str]:
    return ["n", 4, 8, 8], s.conv(s.conv("x", 2, 12, 1, 1, group=2), 12, 4, 1, 1)


def multiplied(s) -> tuple[list, str]:
    """A convolution that makes two channels of each is not one filter for each."""
    return IMAGE, s.conv(s.conv(s.conv("x", 3, 12, 1, 1), 1, 24, 3, 3, group=12), 24, 4, 1, 1)


def read_sideways(s) -> tuple[list, str]:
    return [12, 6], s.node("Gemm", s.gemm("x", 6, 12), s.weight(12, 5, inputs=12), transA=1)


def factor(s) -> tuple[list, str]:
    return ROW, s.node("Gemm", s.gemm("x", 6, 12), s.weight(12, 5, inputs=12), alpha=0.5)


def mixes_samples(s) -> tuple[list, str]:
    maps = s.node("Reshape", s.conv("x", 3, 12, 1, 1), s.constant(np.array([-1, 12])))
    return [2, 3, 4, 4], s.gemm(maps, 12, 5)


def splits_channels(s) -> tuple[list, str]:
    hidden = s.node("Reshape", s.matmul("x", 6, 12), s.constant(np.array([0, 0, 3, 4])))
    return TOKENS, s.matmul(hidden, 4, 5)


def mixes_places(s) -> tuple[list, str]:
    maps = s.node("Transpose", s.conv("x", 3, 12, 3, 3), perm=[0, 2, 3, 1])
    return IMAGE, s.gemm(s.node("Flatten", maps), 12 * 36, 5)


def averaged_channels(s) -> tuple[list, str]:
    mean = s.node("ReduceMean", s.gemm("x", 6, 12), keepdims=1)
    return ROW, s.gemm(s.node("Add", mean, s.vector(1, 12)), 12, 5)


def two_axes(s) -> tuple[list, str]:
    """A constant with a number for each channel and each pixel."""
    maps = s.node("Add", s.conv("x", 3, 12, 1, 1), s.vector(12, 8, 8))
    return IMAGE, s.conv(maps, 12, 4, 1, 1)


def as_wide_as_there_are_channels(s) -> tuple[list, str]:
    """A constant for each column of a map, of which there are as many as channels."""
    maps = s.node("Add", s.conv("x", 3, 8, 1, 1), s.vector(8))
    return IMAGE, s.conv(maps, 8, 4, 1, 1)


def moved_by_a_constant(s) -> tuple[list, str]:
    """A constant with an axis more: after it the samples, as many as channels, are where channels were."""
    maps = s.node("Add", s.conv("x", 3, 12, 1, 1), s.vector(1, 1, 1, 1, 1))
    flat = s.node("Flatten", s.node("GlobalAveragePool", maps))
    return [12, 3, 8, 8], s.gemm(flat, 12, 5)


def met_elsewhere(s) -> tuple[list, str]:
    """Means of channels, multiplied with the columns of the maps, of which there are as many."""
    maps = s.conv("x", 3, 12, 1, 1)
    scaled = s.node("Mul", maps, s.node("ReduceMean", maps, axes=[2, 3], keepdims=0))
    return [8, 3, 8, 12], s.conv(scaled, 12, 4, 1, 1)


def added_not_multiplied(s) -> tuple[list, str]:
    """The channels are what a product adds, not what it multiplies with."""
    hidden = s.gemm("x", 6, 12)
    return ROW, s.node("Gemm", s.node("Neg", "x"), s.weight(6, 12, inputs=6), hidden)


def added_to_itself(s) -> tuple[list, str]:
    hidden = s.gemm("x", 6, 12)
    return ROW, s.node("Gemm", s.node("Relu", hidden), s.weight(12, 12, inputs=12), hidden)


def stored_bias_of_another_shape(s) -> tuple[list, str]:
    hidden = s.node("Gemm", "x", s.weight(6, 12, inputs=6), s.vector(1, 12))
    return ROW, s.gemm(hidden, 12, 5)


LEFT_ALONE = [
    residual_stream,
    two_readers,
    seen_by_callers,
    joined,
    softmax,
    normalised,
    shared_maker,
    shared_reader,
    shared_constant,
    shared_bias,
    pads_by_itself,
    grouped_reader,
    grouped_maker,
    multiplied,
    read_sideways,
    factor,
    mixes_samples,
    splits_channels,
    mixes_places,
    averaged_channels,
    two_axes,
    as_wide_as_there_are_channels,
    moved_by_a_constant,
    met_elsewhere,
    added_not_multiplied,
    added_to_itself,
    stored_bias_of_another_shape,
]


@pytest.mark.parametrize("write", LEFT_ALONE, ids=lambda write: write.__name__)
def test_channels_that_others_depend_on_are_left_alone(write: Callable, sketch) -> None:
    shape, *outputs = write(sketch)
    model = sketch.model(shape, *outputs)
    run(model, drawn(shape))
    assert inner_channels(model) == []


def choosing(s, body_reads: str, shape: list) -> str:
    """Write an If whose bodies read a tensor of the graph around them."""
    bodies = []
    for name in ("yes", "no"):
        node = helper.make_node("Abs" if name == "yes" else "Neg", [body_reads], [name])
        answer = helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        bodies.append(helper.make_graph([node], name, [], [answer]))
    return s.node("If", s.constant(np.array(True)), then_branch=bodies[0], else_branch=bodies[1])


@pytest.mark.parametrize("reads", ["channels", "maker", "reader", "bias", "nothing of it"])
def test_what_the_body_of_an_if_reads_is_left_alone(reads: str, sketch) -> None:
    hidden = sketch.gemm("x", 6, 12)
    output = sketch.gemm(sketch.node("Relu", hidden), 12, 5)
    maker, bias, reader, _ = (tensor.name for tensor in sketch.stored)
    source = {"channels": hidden, "maker": maker, "reader": reader, "bias": bias}.get(reads, "x")
    shape = {"channels": ["n", 12], "maker": [6, 12], "reader": [12, 5], "bias": [12]}.get(reads, ROW)
    model = sketch.model(ROW, output, choosing(sketch, source, shape))
    run(model, drawn(ROW))
    assert len(inner_channels(model)) == (reads == "nothing of it")


def test_a_weight_that_callers_see_is_left_alone(sketch) -> None:
    output = sketch.gemm(sketch.gemm("x", 6, 12), 12, 5)
    model = sketch.model(ROW, output)
    weight = sketch.stored[0]
    model.graph.output.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, weight.dims))
    assert inner_channels(model) == []


def test_layers_in_a_row_each_have_channels(sketch) -> None:
    """The middle layer reads some and makes others; both go at once."""
    hidden = sketch.node("Relu", sketch.gemm("x", 6, 12))
    hidden = sketch.node("Relu", sketch.gemm(hidden, 12, 10))
    model = sketch.model(ROW, sketch.gemm(hidden, 10, 5))
    first, second = inner_channels(model)
    assert (first.width, second.width) == (12, 10)
    assert first.reader.name == second.name
    kept = Remainder(np.arange(5), np.ones((5, 10))), Remainder(np.arange(4), np.ones((4, 5)))
    cut(
        model,
        [
            (Seen(c, Moments(c.width), Moments(c.width)), k)
            for c, k in zip((first, second), kept, strict=True)
        ],
    )
    shapes = [list(tensor.dims) for tensor in model.graph.initializer]
    assert shapes == [[6, 5], [5], [5, 4], [4], [4, 5], [5]]
    assert run(model, drawn(ROW)).shape == (3, 5)


def test_biases_are_given_where_there_were_none_and_made_each_ones_own(sketch) -> None:
    shared = sketch.constant(np.arange(5, dtype=np.float32))
    weights = [sketch.weight(6, 5, inputs=6) for _ in range(4)]
    sums = [
        sketch.node("Gemm", "x", weights[0]),
        sketch.node("Gemm", "x", weights[1], shared, beta=2.0),
        sketch.node("Gemm", "x", weights[2], shared),
        sketch.node("Gemm", "x", weights[3], sketch.vector(1, 5)),
        sketch.matmul("x", 6, 5),
    ]
    model = sketch.model(ROW, sketch.node("Sum", *sums))
    expected = run(model, drawn(ROW))
    give_biases(model)
    assert run(model, drawn(ROW)) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    biases = [stored[node.input[2]] for node in model.graph.node[:4]]
    assert [bias.tolist() for bias in biases[:3]] == [
        [0.0] * 5,
        [0.0, 2.0, 4.0, 6.0, 8.0],
        [0.0, 1.0, 2.0, 3.0, 4.0],
    ]
    assert biases[3].shape == (1, 5)
    assert len({node.input[2] for node in model.graph.node[:4]}) == 4
    assert len(model.graph.node[4].input) == 2
    names = [list(node.input) for node in model.graph.node]
    give_biases(model)
    assert names == [list(node.input) for node in model.graph.node]
