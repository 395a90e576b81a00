"""Cross-layer equalisation: the formula, and answers that stay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.quantize import Equalize, StaticInt8
from flyweight.compressor.passes.quantize.equalize import factors_of
from flyweight.compressor.sessions import Session, SessionSettings

RANGES = arrays(np.float64, 4, elements=st.floats(1e-3, 1e3))


def write_chain(models, between: str = "Relu", *, depthwise: bool = True):
    """Image (n, 3, 8, 8) -> conv -> f -> (depthwise -> f) -> conv -> scores, channels of very unlike size."""
    random = np.random.default_rng(0)
    sizes = np.logspace(-1.5, 1.5, 16).astype(np.float32)
    weights = {
        "w1": random.standard_normal((16, 3, 3, 3)) * sizes[:, None, None, None],
        "b1": random.standard_normal(16) * sizes,
        "w2": random.standard_normal((16, 1, 3, 3)) / 3,
        "w3": random.standard_normal((10, 16, 1, 1)) / sizes[None, :, None, None],
    }
    stored = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    stored += [numpy_helper.from_array(np.array(v, dtype=np.float32), n) for n, v in (("lo", 0), ("hi", 6))]
    limits = ["lo", "hi"] if between == "Clip" else []
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c1"], name="first"),
        helper.make_node(between, ["c1", *limits], ["a1"], name="act1"),
        helper.make_node("Conv", ["a1", "w2"], ["c2"], name="depth", group=16),
        helper.make_node(between, ["c2", *limits], ["a2"], name="act2"),
        helper.make_node("Conv", ["a2" if depthwise else "a1", "w3"], ["y"], name="last"),
        helper.make_node("GlobalAveragePool", ["y"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["scores"], name="flat"),
    ]
    graph = helper.make_graph(
        nodes if depthwise else [*nodes[:2], *nodes[4:]],
        "chain",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        stored,
    )
    return models.write(graph, f"chain-{between}-{depthwise}")


def answers(path, data) -> np.ndarray:
    return Session(path, SessionSettings()).run(data.inputs)["scores"]


def noise_db(expected: np.ndarray, actual: np.ndarray) -> float:
    return float(10 * np.log10(np.square(expected).sum() / np.square(expected - actual).sum()))


@given(RANGES, RANGES)
def test_both_ranges_are_alike_afterwards(first: np.ndarray, second: np.ndarray) -> None:
    factors = factors_of(first, second)
    np.testing.assert_allclose(first / factors, second * factors, rtol=1e-9)


def test_factors_are_those_of_the_formula() -> None:
    """Ranges of 8 and 2 give sqrt(8 * 2) / 2 = 2; a dead channel is left alone."""
    assert factors_of(np.array([8.0, 0.0, 1.0]), np.array([2.0, 5.0, 0.0])).tolist() == [2.0, 1.0, 1.0]


@pytest.mark.parametrize("depthwise", [True, False])
@pytest.mark.parametrize("step", [Equalize(), Equalize(clips="scale")], ids=repr)
def test_answers_stay(models, rows, context_of, step: Equalize, depthwise: bool) -> None:
    between = "Clip" if step.clips == "scale" else "Relu"
    path, data = write_chain(models, between, depthwise=depthwise), rows(image=(3, 8, 8))
    made = step(Model(path=path), context_of(data)).model.onnx_path()
    expected = answers(path, data)
    np.testing.assert_allclose(answers(made, data), expected, atol=1e-4 * np.abs(expected).max())


def test_channels_use_their_ranges_alike_afterwards(models, rows, context_of) -> None:
    data = rows(image=(3, 8, 8))
    made = Equalize()(Model(path=write_chain(models)), context_of(data)).model.onnx_path()
    stored = {t.name: numpy_helper.to_array(t) for t in load_graph(made).graph.initializer}
    peaks = np.abs(stored["w1"]).max(axis=(1, 2, 3))
    assert peaks.max() / peaks.min() < 30


def test_one_scale_for_each_weight_is_enough_after_equalisation(models, rows, context_of) -> None:
    path, data = write_chain(models), rows(image=(3, 8, 8))
    static = StaticInt8(per_channel=False, bias_correction=False)
    context = context_of(data)
    plain = static(Model(path=path), context).model.onnx_path()
    both = PassSequence([Equalize(), static])(Model(path=path), context).model.onnx_path()
    expected = answers(path, data)
    assert noise_db(expected, answers(both, data)) > noise_db(expected, answers(plain, data)) + 6


def test_a_dropped_clip_becomes_a_relu(models, rows, context_of) -> None:
    result = Equalize(clips="drop")(
        Model(path=write_chain(models, "Clip")), context_of(rows(image=(3, 8, 8)))
    )
    operators = [node.op_type for node in load_graph(result.model.onnx_path()).graph.node]
    assert "Clip" not in operators
    assert operators.count("Relu") == 2
    assert any("became ReLUs" in note for note in result.notes)


def test_clips_are_in_the_way_unless_told(models, rows, context_of) -> None:
    with pytest.raises(PassError, match="clips: drop or scale"):
        Equalize()(Model(path=write_chain(models, "Clip")), context_of(rows(image=(3, 8, 8))))


def test_a_function_that_is_not_homogeneous_is_in_the_way(models, rows, context_of) -> None:
    with pytest.raises(PassError, match="No two layers follow each other"):
        Equalize(clips="drop")(Model(path=write_chain(models, "Sigmoid")), context_of(rows(image=(3, 8, 8))))
