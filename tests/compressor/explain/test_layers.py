"""What changed in each layer, on graphs whose change is known."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flyweight.compressor.explain.layers import compare_layers
from flyweight.compressor.model import Model
from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage, StaticInt8


def test_a_model_against_itself_changed_nowhere(models, rows) -> None:
    path = models.mlp()
    found = compare_layers(path, path, rows(x=(16,), samples=3).inputs)
    assert [layer.name for layer in found] == ["first", "second"]
    assert [(layer.parameters, layer.baseline_parameters, layer.bits) for layer in found] == [
        (1024, 1024, 32),
        (640, 640, 32),
    ]
    assert {layer.snr_db for layer in found} == {200.0}
    assert not list(path.parent.glob("observed*"))


def test_an_error_of_a_hundredth_is_forty_decibels(models, rows, tmp_path: Path) -> None:
    path, data = models.mlp(), rows(x=(16,), samples=512)
    model = onnx.load(path)
    weight = numpy_helper.to_array(model.graph.initializer[1])
    changed = numpy_helper.from_array((weight * 1.01).astype(np.float32), model.graph.initializer[1].name)
    model.graph.initializer[1].CopyFrom(changed)
    onnx.save(model, tmp_path / "louder.onnx")
    first, second = compare_layers(path, tmp_path / "louder.onnx", data.inputs)
    assert first.snr_db == 200.0
    assert second.snr_db == pytest.approx(40, abs=0.01)


@pytest.mark.parametrize(("recipe", "bits"), [(StaticInt8(), 8), (DynamicInt8(), 8), (Fp16Storage(), 16)])
def test_bits_are_those_that_are_stored(recipe, bits: int, models, rows, context_of) -> None:
    path, data = models.mlp(), rows(x=(16,))
    variant = recipe(Model(path=path), context_of(data)).model.onnx_path()
    found = compare_layers(path, variant, data.rows(0, 4))
    assert {layer.bits for layer in found} == {bits}
    assert [layer.baseline_parameters for layer in found] == [1024, 640]


def test_zeros_are_counted_where_they_are(models, rows, tmp_path: Path) -> None:
    model = onnx.load(models.mlp())
    weight = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[:16] = 0
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, model.graph.initializer[0].name))
    onnx.save(model, tmp_path / "sparse.onnx")
    first, _ = compare_layers(models.mlp(name="b"), tmp_path / "sparse.onnx", rows(x=(16,), samples=2).inputs)
    assert first.zeros == 0.25


def test_a_relu_that_the_quantizer_dropped_is_no_error_of_the_layer(models, rows, context_of) -> None:
    """Static int8 writes the layer under the name of its ReLU, whose work the range of bytes does."""
    path, data = models.convnet(), rows(image=(3, 16, 16))
    variant = StaticInt8(reduce_range=False)(Model(path=path), context_of(data)).model.onnx_path()
    ratios = [layer.snr_db for layer in compare_layers(path, variant, data.rows(0, 4))]
    assert all(ratio is not None and ratio > 20 for ratio in ratios[:2]), ratios
