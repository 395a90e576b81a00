"""Few bits in an ordinary graph, against integer arithmetic by hand."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.noise import signal_to_noise
from flyweight.compressor.passes.quantize.grids import Spacing
from flyweight.compressor.passes.quantize.simulate import Simulate
from flyweight.compressor.sessions import Session, SessionSettings


def answers(path, inputs) -> np.ndarray:
    return next(iter(Session(path, SessionSettings()).run(inputs).values()))


def weights_of(path) -> list[np.ndarray]:
    return [numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("spacing", list(Spacing))
def test_no_weight_takes_more_values_than_its_bits_have(bits, spacing, models, rows, context_of) -> None:
    if spacing is Spacing.POWER_OF_TWO and bits == 1:
        pytest.skip("one bit has no room for a power, its negative and zero")
    data = rows(image=(3, 16, 16), samples=8)
    result = Simulate(bits=bits, spacing=spacing, per_channel=False)(
        Model(path=models.convnet()), context_of(data)
    )
    graph = onnx.load(result.model.onnx_path()).graph
    codes = [numpy_helper.to_array(t) for t in graph.initializer if t.name.endswith("__codes")]
    assert codes
    # A grid of powers has zero besides its signed powers: one value more than the bits could number.
    most = 2**bits + (spacing is Spacing.POWER_OF_TWO)
    assert all(len(np.unique(code)) <= most for code in codes)
    assert np.isfinite(answers(result.model.onnx_path(), data.rows(0, 2))).all()


def test_more_bits_are_closer_to_the_original(models, rows, context_of) -> None:
    data, source = rows(image=(3, 16, 16), samples=16), models.convnet()
    expected, context = answers(source, data.inputs), context_of(data)
    ratios = [
        signal_to_noise(
            expected, answers(Simulate(bits=bits)(Model(path=source), context).model.onnx_path(), data.inputs)
        )
        for bits in (2, 4, 8)
    ]
    assert ratios == sorted(ratios)
    assert ratios[-1] > 30


def test_the_graph_answers_as_integer_arithmetic_does(models, rows, context_of) -> None:
    """One layer by hand: codes times codes, summed as integers, scaled once."""
    source, data = models.mlp(), rows(x=(16,), samples=32)
    result = Simulate(bits=3, activation_bits=4, exclude=("second",))(Model(path=source), context_of(data))
    graph = onnx.load(result.model.onnx_path()).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weight = next(name for name in stored if name.endswith("__codes"))[: -len("__codes")]
    scale, zero = stored["x__scale"], int(stored["x__zero"])
    inputs = np.clip(np.rint(data.inputs["x"] / scale) + zero, 0, 15).astype(np.int64) - zero
    integers = stored[f"{weight}__codes"].astype(np.int64)
    sums = inputs @ (integers.T if integers.shape[0] == 64 else integers)
    hidden = np.maximum(sums * (float(scale) * stored[f"{weight}__scale"].astype(np.float64)), 0)
    last = next(array for name, array in stored.items() if array.shape in {(10, 64), (64, 10)})
    expected = hidden @ (last.T if last.shape[0] == 10 else last)
    np.testing.assert_allclose(answers(result.model.onnx_path(), data.inputs), expected, rtol=1e-4, atol=1e-4)


def test_activations_take_no_more_values_than_their_bits_have(models, rows, context_of) -> None:
    data = rows(x=(16,), samples=64)
    result = Simulate(bits=8, activation_bits=2)(Model(path=models.mlp()), context_of(data))
    graph = onnx.load(result.model.onnx_path())
    grids = [node.output[0] for node in graph.graph.node if node.output[0].endswith("__grid")]
    assert len(grids) == 2
    graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in grids)
    path = models.folder / "observed.onnx"
    onnx.save(graph, path)
    seen = Session(path, SessionSettings(optimise=False)).run(data.inputs)
    assert all(len(np.unique(seen[name])) <= 4 for name in grids)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bits": 9}, "bits is from 1 to 8"),
        ({"bits": 1, "spacing": Spacing.POWER_OF_TWO}, "bits is from 2 to 8"),
        ({"activation_bits": 1}, "activation_bits is 0, or from 2 to 8"),
    ],
)
def test_numbers_of_bits_that_mean_nothing_are_refused(options, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Simulate(**options)


def test_a_model_without_layers_is_refused(models, rows, context_of) -> None:
    with pytest.raises(PassError, match="no Conv, Gemm or MatMul"):
        Simulate()(Model(path=models.scaled()), context_of(rows(x=(4,), factor=())))
