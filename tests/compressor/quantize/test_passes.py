"""The three passes on whole networks, and what they refuse."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import DataError, PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.base import Pass
from flyweight.compressor.passes.quantize import (
    DynamicInt8,
    Equalize,
    Fp16Storage,
    MixedInt8,
    StaticInt8,
    WeightOnly,
)
from flyweight.compressor.processor import Processor
from flyweight.compressor.sessions import Session, SessionSettings

PASSES = [
    StaticInt8(),
    StaticInt8(calibration="percentile", percentile=99.9),
    StaticInt8(calibration="entropy"),
    StaticInt8(calibration="mse"),
    StaticInt8(per_channel=False),
    StaticInt8(symmetric=True),
    StaticInt8(rounding="adaround"),
    MixedInt8(),
    WeightOnly(),
    DynamicInt8(),
    DynamicInt8(convolutions="integer"),
    Fp16Storage(),
]


def answers(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    return Session(path, SessionSettings()).run(feed)["scores"]


def signal_to_noise_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


@pytest.mark.parametrize("step", PASSES, ids=repr)
def test_a_pass_keeps_the_answers_and_makes_the_file_smaller(step: Pass, models, rows, context_of) -> None:
    path = models.convnet()
    data = rows(image=(3, 16, 16))
    result = step(Model(path=path), context_of(data))
    made = result.model.onnx_path()
    assert result.changed
    assert signal_to_noise_db(answers(path, data.inputs), answers(made, data.inputs)) > 20
    assert made.stat().st_size < 0.75 * path.stat().st_size
    onnx.checker.check_model(made)


@pytest.mark.parametrize("step", [StaticInt8(), MixedInt8()], ids=repr)
def test_a_mean_that_drops_its_axes_is_pooled_in_bytes(step: Pass, models, rows, context_of) -> None:
    """As `x.mean((2, 3))` is exported: the pooled tensor is new to the graph, and needs a range as well."""
    graph = load_graph(models.convnet()).graph
    mean = helper.make_node("ReduceMean", ["r2"], ["f"], name="mean", axes=[2, 3], keepdims=0)
    nodes = [mean if node.name == "pool" else node for node in graph.node if node.name != "flatten"]
    del graph.node[:]
    graph.node.extend(nodes)
    path, data = models.write(graph, "mean"), rows(image=(3, 16, 16))
    made = step(Model(path=path), context_of(data)).model.onnx_path()
    assert "GlobalAveragePool" in {node.op_type for node in load_graph(made).graph.node}
    assert signal_to_noise_db(answers(path, data.inputs), answers(made, data.inputs)) > 20


@pytest.mark.parametrize("step", PASSES, ids=repr)
def test_a_pass_does_not_touch_its_input(step: Pass, models, rows, context_of) -> None:
    path = models.convnet()
    before = path.read_bytes()
    step(Model(path=path), context_of(rows(image=(3, 16, 16))))
    assert path.read_bytes() == before


ONE_OF_EACH = [StaticInt8(), DynamicInt8(), Fp16Storage(), MixedInt8(), WeightOnly(), WeightOnly(bits=4)]


@pytest.mark.parametrize("step", ONE_OF_EACH, ids=repr)
def test_weights_in_constant_nodes_are_compressed_as_well(step: Pass, models, rows, context_of) -> None:
    path = models.mlp(constants=True)
    made = step(Model(path=path), context_of(rows(x=(16,)))).model.onnx_path()
    assert made.stat().st_size < 0.8 * path.stat().st_size


@pytest.mark.parametrize("step", ONE_OF_EACH, ids=repr)
def test_a_fixed_batch_stays_fixed(step: Pass, models, rows, context_of) -> None:
    path = models.mlp(batch=4)
    made = step(Model(path=path), context_of(rows(samples=10, x=(16,)))).model.onnx_path()
    assert Session(made, SessionSettings()).signature.inputs[0].shape == (4, 16)


def test_activations_are_unsigned_and_weights_signed_bytes_per_channel(models, rows, context_of) -> None:
    made = StaticInt8()(Model(path=models.convnet()), context_of(rows(image=(3, 16, 16)))).model.onnx_path()
    stored = {tensor.name: tensor for tensor in load_graph(made).graph.initializer}
    assert stored["w1_quantized"].data_type == TensorProto.INT8
    assert list(stored["w1_scale"].dims) == [16]
    assert stored["image_zero_point"].data_type == TensorProto.UINT8


def test_ranges_are_those_of_the_calibration_data(models, rows, context_of) -> None:
    """The input's scale is (max - min) / 255."""
    data = rows(image=(3, 16, 16))
    made = StaticInt8()(Model(path=models.convnet()), context_of(data)).model.onnx_path()
    stored = {tensor.name: tensor for tensor in load_graph(made).graph.initializer}
    values = data.inputs["image"]
    scale = float(numpy_helper.to_array(stored["image_scale"]))
    assert scale == pytest.approx((values.max() - values.min()) / 255, rel=1e-5)


def test_weights_use_seven_bits_where_products_can_saturate(models, rows, context_of, monkeypatch) -> None:
    monkeypatch.setattr(
        "flyweight.compressor.passes.quantize.opening.this_processor",
        lambda: Processor("old", ("avx2",), 1),
    )
    result = StaticInt8()(Model(path=models.convnet()), context_of(rows(image=(3, 16, 16))))
    weight = next(
        tensor
        for tensor in load_graph(result.model.onnx_path()).graph.initializer
        if tensor.name == "w1_quantized"
    )
    assert np.abs(numpy_helper.to_array(weight)).max() <= 64
    assert any("7 bits" in note for note in result.notes)


def test_excluded_layers_stay_in_floating_point(models, rows, context_of) -> None:
    step = StaticInt8(exclude=("conv1", "Gemm"))
    made = step(Model(path=models.convnet()), context_of(rows(image=(3, 16, 16)))).model.onnx_path()
    floats = {t.name for t in load_graph(made).graph.initializer if t.data_type == TensorProto.FLOAT}
    assert {"w1", "w3"} <= floats
    assert "w2" not in floats


@pytest.mark.parametrize(
    "step", [StaticInt8(), DynamicInt8(), MixedInt8(), WeightOnly(), Equalize()], ids=repr
)
def test_a_quantized_model_is_not_quantized_again(step: Pass, models, rows, context_of) -> None:
    context = context_of(rows(image=(3, 16, 16)))
    quantized = StaticInt8()(Model(path=models.convnet()), context).model
    with pytest.raises(PassError, match="quantized already"):
        step(quantized, context)


@pytest.mark.parametrize(
    "step", [StaticInt8(), DynamicInt8(), MixedInt8(), WeightOnly(), Equalize()], ids=repr
)
def test_a_graph_without_weighted_layers_is_refused(step: Pass, models, rows, context_of) -> None:
    path = models.identity(TensorProto.FLOAT, ["n", 4])
    with pytest.raises(PassError, match="no Conv, Gemm or MatMul"):
        step(Model(path=path), context_of(rows(x=(4,))))


def test_a_graph_without_weights_has_nothing_to_store(models, rows, context_of) -> None:
    path = models.identity(TensorProto.FLOAT, ["n", 4])
    with pytest.raises(PassError, match="nothing to store"):
        Fp16Storage()(Model(path=path), context_of(rows(x=(4,))))


def test_calibration_data_that_do_not_fit_are_named(models, rows, context_of) -> None:
    with pytest.raises(DataError, match="no array for the model's input 'image'"):
        StaticInt8()(Model(path=models.convnet()), context_of(rows(x=(4,))))


def test_an_old_opset_is_raised(models, rows, context_of) -> None:
    model = onnx.load(models.convnet())
    model.opset_import[0].version = 11
    path = models.folder / "old.onnx"
    onnx.save_model(model, path)
    made = StaticInt8()(Model(path=path), context_of(rows(image=(3, 16, 16)))).model.onnx_path()
    assert load_graph(made).opset_import[0].version >= 13


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StaticInt8(calibration="max"), "minmax, percentile, entropy or mse, not 'max'"),  # type: ignore[arg-type]
        (lambda: StaticInt8(percentile=20), "above 50"),
        (lambda: StaticInt8(rounding="up"), "nearest or adaround, not 'up'"),  # type: ignore[arg-type]
        (lambda: MixedInt8(calibration="max"), "minmax, percentile, entropy or mse, not 'max'"),  # type: ignore[arg-type]
        (lambda: MixedInt8(spared="half"), "float or dynamic, not 'half'"),  # type: ignore[arg-type]
        (lambda: MixedInt8(percentile=10), "above 50"),
        (lambda: MixedInt8(target_db=0), "above 0"),
        (lambda: MixedInt8(most_spared=2), "from 0 to 1, not 2"),
        (lambda: WeightOnly(bits=3), "4 or 8, not 3"),  # type: ignore[arg-type]
        (lambda: WeightOnly(block=17), "not 17"),
        (lambda: Equalize(clips="keep"), "skip, scale or drop, not 'keep'"),  # type: ignore[arg-type]
        (lambda: DynamicInt8(convolutions="fast"), "keep, store or integer, not 'fast'"),
    ],
)
def test_options_without_meaning_are_refused(make, sentence: str) -> None:
    with pytest.raises(RecipeError, match=sentence):
        make()


@pytest.mark.parametrize("step", [StaticInt8(), MixedInt8(), WeightOnly(), Equalize()], ids=repr)
def test_weights_that_are_no_numbers_are_named(step: Pass, models, rows, context_of) -> None:
    model = onnx.load(models.mlp())
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[0, :3] = np.nan, np.inf, -np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    path = models.folder / "broken.onnx"
    onnx.save_model(model, path)
    with pytest.raises(PassError, match="'w1' holds 3 values that are not finite; repair the model"):
        step(Model(path=path), context_of(rows(x=(16,))))


@pytest.mark.parametrize("step", [StaticInt8(), MixedInt8(), WeightOnly(), Equalize()], ids=repr)
def test_weights_inside_branches_alone_are_nothing_to_quantize(step: Pass, models, rows, context_of) -> None:
    with pytest.raises(PassError, match="no Conv, Gemm or MatMul"):
        step(Model(path=models.choosing()), context_of(rows(x=(8,))))


def test_nothing_is_left_when_every_layer_is_excluded(models, rows, context_of) -> None:
    with pytest.raises(PassError, match="Every layer with weights is excluded"):
        StaticInt8(exclude=("Conv", "Gemm"))(
            Model(path=models.convnet()), context_of(rows(image=(3, 16, 16)))
        )


def test_nothing_is_printed(models, rows, context_of, capfd) -> None:
    context = context_of(rows(image=(3, 16, 16)))
    for step in (StaticInt8(), DynamicInt8(), Fp16Storage()):
        step(Model(path=models.convnet()), context)
    assert capfd.readouterr() == ("", "")
