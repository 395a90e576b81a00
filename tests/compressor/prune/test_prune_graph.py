"""Pruning graphs without training: answers stay, work goes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from flyweight.compressor.cli.passes import passes
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import DataError, OutOfTimeError, PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph, save_graph
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.prune import elimination, prune_graph
from flyweight.compressor.passes.prune.divergence import relative_error
from flyweight.compressor.passes.prune.graph_cut import mirrored
from flyweight.compressor.passes.prune.graph_harm import GraphHarm
from flyweight.compressor.passes.prune.graph_weights import GraphWeight
from flyweight.compressor.passes.prune.prune_graph import PruneGraph
from flyweight.compressor.passes.prune.work import Work
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.passes.quantize.preparation import with_shapes
from flyweight.compressor.recipe import load_recipes, steps_of

MakeContext = Callable[..., Context]


def answers(path: Path, data: DataSet, rows: int | None = None) -> np.ndarray:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    count = rows or data.samples
    feeds = [data.rows(start, start + count) for start in range(0, data.samples - count + 1, count)]
    return np.concatenate([session.run(None, feed)[0] for feed in feeds])


def dims(path: Path) -> list[list[int]]:
    """Return the shapes of a graph's weights, in the order of its layers."""
    graph = load_graph(path).graph
    stored = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return [stored[node.input[1]] for node in graph.node if node.op_type in {"Conv", "Gemm", "MatMul"}]


def work(path: Path) -> float:
    return Work(with_shapes(load_graph(path)), []).left({})


@pytest.fixture
def image_net(sketch, tmp_path: Path) -> Path:
    """Write a stem, two inverted residual blocks of 32 and 48 channels, and a classifier."""
    stream = sketch.node("Relu", sketch.conv("x", 3, 8, 3, 3, pads=[1, 1, 1, 1]))
    for width in (32, 48):
        wide = sketch.node("Relu", sketch.conv(stream, 8, width, 1, 1))
        wide = sketch.node("Relu", sketch.conv(wide, 1, width, 3, 3, group=width, pads=[1, 1, 1, 1]))
        stream = sketch.node("Add", stream, sketch.conv(wide, width, 8, 1, 1))
    scores = sketch.gemm(sketch.node("Flatten", sketch.node("GlobalAveragePool", stream)), 8, 5)
    return save_graph(sketch.model(["n", 3, 8, 8], scores), tmp_path / "image-net.onnx")


@pytest.fixture
def images(rows: Callable[..., DataSet]) -> DataSet:
    return rows(32, x=(3, 8, 8))


@pytest.fixture
def perceptron(sketch, tmp_path: Path) -> Callable[..., Path]:
    """Write 6 -> 32 -> 5 with batches of any or some fixed size; `width` is that of the hidden layer."""

    def write(batch: int | str = "n", width: int = 32, before: Callable[[str], str] = str) -> Path:
        hidden = sketch.node("Relu", sketch.gemm(before("x"), 6, width))
        return save_graph(sketch.model([batch, 6], sketch.gemm(hidden, width, 5)), tmp_path / "net.onnx")

    return write


@pytest.fixture
def features(rows: Callable[..., DataSet]) -> DataSet:
    return rows(64, x=(6,))


def test_an_image_network_answers_almost_the_same(image_net, images, make_context: MakeContext) -> None:
    bytes_before = image_net.read_bytes()
    result = PruneGraph(0.2, round_to=8)(Model(path=image_net), make_context(images))
    made = result.model.onnx_path()
    onnx.checker.check_model(made, full_check=True)
    assert result.changed
    expected, found = answers(image_net, images), answers(made, images)
    assert np.isfinite(found).all()
    assert relative_error(expected, found) < 0.05
    assert image_net.read_bytes() == bytes_before
    assert made.stat().st_size < image_net.stat().st_size
    assert "of 80 channels inside the graph went" in result.notes[0]
    assert "the layers that read them were fitted anew" in result.notes[0]


@pytest.mark.parametrize("ratio", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("round_to", [4, 16])
def test_the_work_that_is_asked_for_goes_in_steps_of_the_width(
    ratio: float, round_to: int, image_net, images, make_context: MakeContext
) -> None:
    made = PruneGraph(ratio, most=0.7, round_to=round_to)(
        Model(path=image_net), make_context(images)
    ).model.onnx_path()
    widths = [shape[0] for shape in dims(made)]
    assert all(width % round_to == 0 for width in widths[1:3] + widths[4:6])
    assert (widths[3], widths[6]) == (8, 8)
    whole, left = work(image_net), work(made)
    # A channel of a block is two products with 8 channels and a depthwise filter, on 64 pixels.
    step = round_to * 64 * (2 * 8 + 4 * 9)
    assert (1 - ratio) * whole - step < left <= (1 - ratio) * whole


def test_no_layer_loses_more_than_is_allowed(image_net, images, make_context: MakeContext) -> None:
    """And what cannot be reached is not refused: as much goes as may."""
    made = PruneGraph(0.9, most=0.25, round_to=4)(Model(path=image_net), make_context(images)).model
    assert [shape[0] for shape in dims(made.onnx_path())] == [8, 24, 24, 8, 36, 36, 8, 8]


def test_copies_of_channels_go_and_the_answers_stay(
    monkeypatch: pytest.MonkeyPatch, sketch, features, make_context: MakeContext, tmp_path: Path
) -> None:
    """The second half of the hidden layer is the first half, read with other weights."""
    half = sketch.random.standard_normal((6, 16)).astype(np.float32)
    hidden = sketch.node("Gemm", "x", sketch.constant(np.hstack([half, half])))
    output = sketch.gemm(sketch.node("Relu", hidden), 32, 5)
    path = save_graph(sketch.model(["n", 6], output), tmp_path / "net.onnx")
    expected = answers(path, features)
    step, context = PruneGraph(0.5, round_to=16), make_context(features)
    made = step(Model(path=path), context).model.onnx_path()
    assert dims(made)[0] == [6, 16]
    assert len(np.unique(numpy_helper.to_array(load_graph(made).graph.initializer[0]), axis=1)[0]) == 16
    assert relative_error(expected, answers(made, features)) < 1e-3
    # What is left of an error comes from the ridge alone.
    monkeypatch.setattr(elimination, "_RIDGE", 1e-7)
    made = step(Model(path=path), context).model.onnx_path()
    assert answers(made, features) == pytest.approx(expected, abs=1e-3)


def test_fitting_the_readers_anew_is_better_than_leaving_them(
    perceptron, features, make_context: MakeContext
) -> None:
    path = perceptron()
    made = PruneGraph(0.5, round_to=16)(Model(path=path), make_context(features)).model.onnx_path()
    graph, cut = load_graph(path), load_graph(made)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    first, second = (node for node in graph.graph.node if node.op_type == "Gemm")
    maker = numpy_helper.to_array(cut.graph.initializer[0])
    kept = [int(np.abs(stored[first.input[1]] - column[:, None]).sum(axis=0).argmin()) for column in maker.T]
    naive = np.maximum(features.inputs["x"] @ maker + stored[first.input[2]][kept], 0)
    naive = naive @ stored[second.input[1]][kept] + stored[second.input[2]]
    expected = answers(path, features)
    assert relative_error(expected, answers(made, features)) < 0.2 * relative_error(expected, naive)


def test_the_same_graph_comes_out_twice(image_net, images, make_context: MakeContext) -> None:
    context = make_context(images)
    one, other = (PruneGraph(0.2, round_to=8)(Model(path=image_net), context) for _ in range(2))
    assert one.model.onnx_path().read_bytes() == other.model.onnx_path().read_bytes()
    assert one.notes == other.notes


def test_what_was_cut_can_be_cut_again(sketch, rows, make_context: MakeContext, tmp_path: Path) -> None:
    """The constant shape of a Reshape changes with the channels, each time."""
    maps = sketch.node("Relu", sketch.conv("x", 3, 32, 3, 3))
    flat = sketch.node("Reshape", maps, sketch.constant(np.array([-1, 32 * 4])))
    path = save_graph(sketch.model(["n", 3, 4, 4], sketch.gemm(flat, 128, 5)), tmp_path / "net.onnx")
    data = rows(16, x=(3, 4, 4))
    twice = PassSequence([PruneGraph(0.2, round_to=8), PruneGraph(0.2, round_to=8)])
    made = twice(Model(path=path), make_context(data)).model.onnx_path()
    onnx.checker.check_model(made, full_check=True)
    assert dims(made) == [[16, 3, 3, 3], [64, 5]]
    assert relative_error(answers(path, data), answers(made, data)) < 0.5


def test_a_shared_bias_is_made_each_ones_own(sketch, features, make_context, tmp_path: Path) -> None:
    """Two readers add the same bias, and each shifts its own."""
    bias = sketch.vector(5)
    hidden = [sketch.node("Relu", sketch.gemm("x", 6, 32)) for _ in range(2)]
    read = [sketch.node("Gemm", each, sketch.weight(32, 5, inputs=32), bias, beta=3.0) for each in hidden]
    path = save_graph(sketch.model(["n", 6], sketch.node("Sum", *read)), tmp_path / "net.onnx")
    made = PruneGraph(0.5)(Model(path=path), make_context(features)).model.onnx_path()
    assert dims(made) == [[6, 16], [6, 16], [16, 5], [16, 5]]
    expected, found = answers(path, features), answers(made, features)
    assert found.mean(axis=0) == pytest.approx(expected.mean(axis=0), abs=1e-4)
    assert relative_error(expected, found) < 0.01


@pytest.mark.parametrize(("batch", "samples"), [(8, 12), (8, 64), (80, 90), (1, 5)])
def test_a_fixed_batch_is_fed_whole(batch: int, samples: int, perceptron, rows, make_context) -> None:
    """Even where half of the samples, which harm is measured on, are less than a batch."""
    path, data = perceptron(batch), rows(samples, x=(6,))
    made = PruneGraph(0.5)(Model(path=path), make_context(data)).model.onnx_path()
    assert dims(made) == [[6, 16], [16, 5]]
    assert answers(made, data, batch).shape == (samples // batch * batch, 5)


def test_harm_of_a_fixed_batch_is_measured_on_samples_that_repeat(perceptron, rows, make_context) -> None:
    """By hand: without its last weight and bias a layer answers zeros, which is all of the energy."""
    graph = load_graph(perceptron(8))
    weights = [GraphWeight(tensor.name, 0, tensor) for tensor in graph.graph.initializer[2:]]
    harm = GraphHarm(graph, weights, make_context(rows(12, x=(6,))), among=np.arange(1, 12, 2))
    nothing = {weight.name: np.zeros_like(weight.values()) for weight in weights}
    assert harm.noise_of(nothing) == pytest.approx(1.0)
    assert harm.noise_of({}) == 0


def test_a_batch_axis_that_is_only_promised(sketch, perceptron, features, make_context) -> None:
    """The file says n rows, and a Reshape inside has one row built in."""
    path = perceptron(before=lambda x: sketch.node("Reshape", x, sketch.constant(np.array([1, 6]))))
    made = PruneGraph(0.5)(Model(path=path), make_context(features)).model.onnx_path()
    assert dims(made) == [[6, 16], [16, 5]]
    expected, found = answers(path, features, 1), answers(made, features, 1)
    assert relative_error(expected, found) < 0.1


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_a_few_samples_are_enough(samples: int, perceptron, rows, make_context: MakeContext) -> None:
    data = rows(samples, x=(6,))
    made = PruneGraph(0.5)(Model(path=perceptron()), make_context(data)).model.onnx_path()
    assert np.isfinite(answers(made, data)).all()


@pytest.fixture
def text_net(sketch, tmp_path: Path) -> Path:
    """Write the feed-forward half of a transformer's block on sequences of any length, without biases."""
    hidden = sketch.matmul("x", 8, 48)
    inner = sketch.node("Erf", sketch.node("Div", hidden, sketch.constant(np.float32(2**0.5))))
    gate = sketch.node("Add", inner, sketch.constant(np.float32(1)))
    output = sketch.node("Add", sketch.matmul(sketch.node("Mul", hidden, gate), 48, 8), "x")
    return save_graph(sketch.model(["n", "length", 8], output), tmp_path / "text-net.onnx")


def test_sequences_of_any_length_stay_of_any_length(text_net, rows, make_context: MakeContext) -> None:
    data = rows(32, x=(6, 8))
    made = PruneGraph(0.3)(Model(path=text_net), make_context(data)).model.onnx_path()
    assert dims(made) == [[8, 32], [32, 8]]
    assert relative_error(answers(text_net, data), answers(made, data)) < 0.05
    other = rows(3, x=(11, 8))
    assert relative_error(answers(text_net, other), answers(made, other)) < 0.1


def through(recipe: str, path: Path, context: Context) -> tuple[Path, set[str]]:
    """Return what a recipe makes of a graph, and the operators in it."""
    file = context.new_path("recipe", ".yaml")
    file.write_text(f"name: small\npasses: {recipe}\n")
    result = PassSequence(steps_of(load_recipes(file)["small"]))(Model(path=path), context)
    assert any("channels inside the graph went" in note for note in result.notes)
    made = result.model.onnx_path()
    return made, {node.op_type for node in load_graph(made).graph.node}


def test_a_pruned_image_network_becomes_static_int8(image_net, images, make_context: MakeContext) -> None:
    recipe = "[prune-graph: {ratio: 0.2, round_to: 8}, static-int8]"
    made, operators = through(recipe, image_net, make_context(images))
    assert operators & {"QLinearConv", "QuantizeLinear"}
    assert relative_error(answers(image_net, images), answers(made, images)) < 0.1


def test_a_fused_and_pruned_text_network_becomes_dynamic_int8(text_net, rows, make_context) -> None:
    data = rows(32, x=(6, 8))
    recipe = "[fuse-graph, prune-graph: {ratio: 0.3}, dynamic-int8]"
    made, operators = through(recipe, text_net, make_context(data))
    assert "DynamicQuantizeLinear" in operators or "DynamicQuantizeMatMul" in operators
    assert relative_error(answers(text_net, data), answers(made, data)) < 0.1


def test_the_command_line_explains_the_options() -> None:
    shown = CliRunner().invoke(passes, ["prune-graph"])
    assert shown.exit_code == 0, shown.output
    for line in ("ratio: number, at least 0, below 1", "most: number", "round_to: integer, at least 1"):
        assert line in shown.output
    assert "fraction of the graph's work" in shown.output


@pytest.mark.parametrize(
    "options", [{"ratio": 1.0}, {"ratio": -0.1}, {"most": 1.0}, {"ratio": float("nan")}, {"round_to": 0}]
)
def test_options_out_of_range_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="at least"):
        PruneGraph(**options)


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"most": 0.1}])
def test_where_nothing_may_go_nothing_changes(options, perceptron, features, make_context) -> None:
    model = Model(path=perceptron())
    result = PruneGraph(**options)(model, make_context(features))
    assert not result.changed
    assert result.model is model
    assert "No channel could go" in result.notes[0]


def test_a_graph_without_inner_channels_is_refused(perceptron, features, make_context) -> None:
    with pytest.raises(PassError, match="No layer gives more than 16 channels that only one other layer"):
        PruneGraph()(Model(path=perceptron(width=16)), make_context(features))


def test_a_quantized_graph_is_refused(image_net, images, make_context: MakeContext) -> None:
    context = make_context(images)
    quantized = StaticInt8()(Model(path=image_net), context).model
    with pytest.raises(PassError, match="quantized already; give the one in floating point"):
        PruneGraph()(quantized, context)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_weight_is_named(value: float, perceptron, features, make_context: MakeContext) -> None:
    graph = load_graph(perceptron())
    weight = graph.graph.initializer[0]
    values = numpy_helper.to_array(weight).copy()
    values[0, 0] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path = save_graph(graph, make_context(features).new_path("broken"))
    with pytest.raises(PassError, match=f"'{weight.name}' holds 1 values that are not finite"):
        PruneGraph()(Model(path=path), make_context(features))


def test_activations_that_overflow_are_named(sketch, features, make_context, tmp_path: Path) -> None:
    huge = sketch.node("Exp", sketch.node("Mul", sketch.gemm("x", 6, 32), sketch.constant(np.float32(1e3))))
    path = save_graph(sketch.model(["n", 6], sketch.gemm(huge, 32, 5)), tmp_path / "net.onnx")
    with pytest.raises(PassError, match="not finite on the calibration data"):
        PruneGraph()(Model(path=path), make_context(features))


def test_data_that_do_not_fit_are_refused(perceptron, rows, make_context: MakeContext) -> None:
    with pytest.raises(DataError, match="no array for the model's input 'x'"):
        PruneGraph()(Model(path=perceptron()), make_context(rows(8, y=(6,))))


def test_measuring_stops_when_the_time_is_up(perceptron, features, make_context: MakeContext) -> None:
    with pytest.raises(OutOfTimeError):
        PruneGraph()(Model(path=perceptron()), make_context(features, deadline=0.0))


def test_progress_is_told_to_the_end(image_net, images, make_context: MakeContext) -> None:
    told: list[tuple[str, int, int]] = []
    PruneGraph()(Model(path=image_net), make_context(images, progress=lambda *step: told.append(step)))
    assert {"looking at layers", "measuring layers"} <= {what for what, _, _ in told}
    assert told[-1] == ("fitting layers", 1, 1)


def test_what_nobody_reads_any_more_goes(sketch, rows, make_context, tmp_path: Path) -> None:
    flat = sketch.node("Reshape", sketch.conv("x", 3, 32, 3, 3), sketch.constant(np.array([-1, 32 * 4])))
    path = save_graph(sketch.model(["n", 3, 4, 4], sketch.gemm(flat, 128, 5)), tmp_path / "net.onnx")
    made = PruneGraph(0.5)(Model(path=path), make_context(rows(16, x=(3, 4, 4)))).model.onnx_path()
    graph = load_graph(made).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_mirror_images_are_looked_at_in_the_half_of_their_originals() -> None:
    """Of five samples four count: their mirror images follow, at places of the same parity."""
    images = np.arange(5 * 3 * 2 * 4, dtype=np.float32).reshape(5, 3, 2, 4)
    made = mirrored(DataSet({"x": images, "n": np.arange(5.0)}))
    np.testing.assert_array_equal(made.inputs["x"][:4], images[:4])
    np.testing.assert_array_equal(made.inputs["x"][4:], images[:4, :, :, ::-1])
    np.testing.assert_array_equal(made.inputs["n"], [0, 1, 2, 3, 0, 1, 2, 3])


def test_mirroring_changes_what_is_fitted(image_net, images, make_context: MakeContext) -> None:
    """The cut is made with twice the samples: the same network otherwise, other weights."""
    context = make_context(images)
    made = [
        PruneGraph(ratio=0.2, mirror=mirror)(Model(path=image_net), context).model.onnx_path()
        for mirror in (False, True)
    ]
    assert not np.array_equal(*(answers(path, images) for path in made))


def test_mirroring_without_images_is_refused(perceptron, features, make_context: MakeContext) -> None:
    with pytest.raises(PassError, match="mirror is for images"):
        PruneGraph(mirror=True)(Model(path=perceptron()), make_context(features))


def test_integers_alone_tell_no_harm(sketch, features, make_context, tmp_path: Path) -> None:
    scores = sketch.gemm(sketch.node("Relu", sketch.gemm("x", 6, 32)), 32, 5)
    model = sketch.model(["n", 6], scores)
    model.graph.node.append(onnx.helper.make_node("ArgMax", [scores], ["best"], axis=1))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("best", onnx.TensorProto.INT64, None))
    path = save_graph(model, tmp_path / "classes.onnx")
    with pytest.raises(PassError, match="integers alone"):
        PruneGraph()(Model(path=path), make_context(features))


def test_the_narrowest_readers_come_first_where_memory_is_short(
    image_net, images, make_context: MakeContext, monkeypatch
) -> None:
    """Room for the moments of the block of 32 channels and not for that of 48 too."""
    monkeypatch.setattr(prune_graph, "_MOST_BYTES", 2 * 8 * 33**2)
    made = PruneGraph(ratio=0.3)(Model(path=image_net), make_context(images)).model.onnx_path()
    widths = [shape[0] for shape in dims(made)]
    assert 16 in widths
    assert 48 in widths
