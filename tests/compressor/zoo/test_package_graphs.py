"""A few of the graphs that come with the onnx package; benchmarks/zoo.py goes through them all."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flyweight.compressor.errors import ModelError

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
TAKEN = [
    "pytorch-converted/test_Conv2d_depthwise_padded",
    "pytorch-converted/test_ConvTranspose2d",
    "pytorch-converted/test_Conv3d_groups",
    "pytorch-converted/test_Embedding",
    "pytorch-operator/test_operator_lstm",
    "simple/test_expand_shape_model1",
    "simple/test_sequence_model1",
]
REFUSED = {
    "pytorch-converted/test_BatchNorm3d_eval": r"implementation for BatchNormalization\(6\)",
    "pytorch-converted/test_Linear": "Could not find an implementation for Gemm",
    "simple/test_gradient_of_add": "Gradient",
}


def samples_of(name: str) -> tuple[Path, dict[str, np.ndarray]]:
    """Return a graph's file, and its own test input eight times, floats with a little noise."""
    path, random = DATA / name / "model.onnx", np.random.default_rng(0)
    graph = onnx.load(path).graph
    stored, arrays = {tensor.name for tensor in graph.initializer}, {}
    for place, value in enumerate(value for value in graph.input if value.name not in stored):
        file = path.parent / "test_data_set_0" / f"input_{place}.pb"
        array = np.stack([numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))] * 8)
        if array.dtype.kind == "f":
            array = (array + 0.05 * random.standard_normal(array.shape)).astype(array.dtype)
        arrays[value.name] = array
    return path, arrays


@pytest.mark.parametrize("name", [name for name in TAKEN if (DATA / name / "model.onnx").exists()])
def test_nothing_harmful_comes_of_a_graph_of_the_package(name: str, squeeze) -> None:
    report = squeeze(*samples_of(name))
    assert report.baseline.verdict.published


@pytest.mark.parametrize("name", REFUSED)
def test_what_onnxruntime_cannot_run_is_refused_with_its_reason(name: str, squeeze) -> None:
    with pytest.raises(ModelError, match=REFUSED[name]):
        squeeze(*samples_of(name))
