"""Findings about graphs that really run slowly, and none about one that does not."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.explain.audit import audit
from flyweight.compressor.explain.profiling import Kernel, Profile, profile
from flyweight.compressor.sessions import SessionSettings

EMPTY = onnx.ModelProto()


def kernel(operator: str, microseconds: float, *types: str) -> Kernel:
    return Kernel(f"the_{operator}", operator, microseconds * 1e-6, types or ("float",), (1, 64))


def profiled(*kernels: Kernel, rest: float = 0.0) -> Profile:
    return Profile(EMPTY, kernels, sum(k.seconds for k in kernels) + rest * 1e-6)


def test_a_layer_left_in_fp32_among_integers_is_named_with_its_share_of_time() -> None:
    found = audit(profiled(kernel("QLinearConv", 60, "uint8"), kernel("FusedConv", 40)), EMPTY)
    assert [finding.nodes for finding in found] == [("the_FusedConv",)]
    assert found[0].share == pytest.approx(0.4)
    assert "still compute in fp32" in found[0].finding


def test_a_graph_all_in_fp32_has_no_islands() -> None:
    assert audit(profiled(kernel("FusedConv", 100)), EMPTY) == ()


def test_integer_convolutions_of_dynamic_quantization_are_told_first() -> None:
    found = audit(profiled(kernel("ConvInteger", 90, "uint8"), kernel("Mul", 10)), EMPTY)
    assert "ConvInteger" in found[0].finding
    assert "static-int8" in found[0].remedy


def test_what_takes_no_time_is_not_told() -> None:
    assert audit(profiled(kernel("QLinearConv", 99, "uint8"), kernel("Transpose", 1)), EMPTY) == ()


def test_a_tiny_model_is_told_that_it_pays_for_its_nodes() -> None:
    found = audit(profiled(kernel("Gemm", 5), rest=15), EMPTY)
    assert found[0].share == pytest.approx(0.75)
    assert "between kernels" in found[0].finding


def test_zeros_and_halves_are_told_for_what_they_are() -> None:
    found = audit(profiled(kernel("Gemm", 5)), EMPTY, zeros=0.9, halves=True)
    assert [finding.share for finding in found] == [None, None]
    assert "90% of the weights are zero" in found[0].finding


def test_misaligned_widths_are_found_in_the_models_own_graph() -> None:
    weights = [numpy_helper.from_array(np.ones((n, 8), dtype=np.float32), f"w{n}") for n in (33, 32, 10)]
    nodes = [helper.make_node("Gemm", ["x", w.name], [f"y{w.name}"], f"g{w.name}", transB=1) for w in weights]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], weights))
    found = audit(profiled(kernel("Gemm", 5)), model)
    assert [finding.nodes for finding in found] == [("gw33",)]


def test_a_profile_names_the_nodes_that_ran(models) -> None:
    path = models.convnet()
    seen = profile(path, {"image": np.zeros((1, 3, 16, 16), dtype=np.float32)}, SessionSettings())
    assert any("Conv" in k.operator for k in seen.kernels)
    assert seen.kernel_seconds > 0
    assert all(k.seconds >= 0 for k in seen.kernels)


def test_activations_between_integer_layers_are_blamed_for_the_conversions(models, rows, context_of) -> None:
    """HardSwish has no integer kernel: the graph that runs crosses two borders for each of them."""
    from flyweight.compressor.model import Model
    from flyweight.compressor.passes.quantize.static_int8 import StaticInt8

    weights = [models.weight(f"w{n}", 32, 32, 3, 3) for n in range(3)]
    nodes = []
    for n, weight in enumerate(weights):
        source = "x" if n == 0 else f"h{n - 1}"
        nodes.append(helper.make_node("Conv", [source, weight.name], [f"c{n}"], f"conv{n}", pads=[1] * 4))
        nodes.append(helper.make_node("HardSwish", [f"c{n}"], [f"h{n}" if n < 2 else "y"], f"swish{n}"))
    info = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", 32, 16, 16]) for n in "xy"]
    path = models.write(helper.make_graph(nodes, "swish", info[:1], info[1:], weights), "swish")
    data = rows(x=(32, 16, 16), samples=8)
    quantized = StaticInt8()(Model(path=path), context_of(data)).model.onnx_path()
    found = audit(
        profile(quantized, data.rows(0, 1), SessionSettings()), onnx.load(quantized, load_external_data=False)
    )
    assert any("HardSwish" in f.finding or "replace-activations" in f.remedy for f in found)


def test_a_model_that_cannot_run_is_an_error(models) -> None:
    with pytest.raises(ModelError, match="could not be profiled"):
        profile(models.convnet(), {"image": np.zeros((1, 5, 16, 16), dtype=np.float32)}, SessionSettings())
