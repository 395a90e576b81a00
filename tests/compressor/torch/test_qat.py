"""Quantization-aware training: what it learns is what the quantized graph stores."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.quantize.fake_quantization import RoundedInput, RoundedWeight, fake_quantized
from flyweight.compressor.passes.quantize.qat import QuantizationAwareTraining
from flyweight.compressor.passes.quantize.static_int8 import StaticInt8
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings

SHORT = TrainingSettings(epochs=1, learning_rate=1e-3)


def test_weights_lie_on_their_grids_and_the_module_is_a_plain_one(residual, images, make_context) -> None:
    original = copy.deepcopy(residual)
    result = QuantizationAwareTraining(bits=3, training=SHORT)(
        model_of(residual, images), make_context(baseline=residual)
    )
    trained = result.model.torch_module()
    assert type(trained.stem) is nn.Conv2d
    assert not trained.stem._forward_pre_hooks
    for layer in (trained.stem, trained.inner, trained.outer, trained.head):
        for row in layer.weight.detach().flatten(1):
            assert len(row.unique()) <= 7
    assert all(torch.equal(a, b) for a, b in zip(residual.parameters(), original.parameters(), strict=True))
    assert "weights of 3 bits and inputs of 8 bits" in result.notes[0]


def test_training_finds_weights_that_lose_less_than_rounding_them(residual, images, make_context) -> None:
    """At 2 bits, the module after training is closer to its teacher than the one merely rounded."""
    unlabelled = DataSet(images.inputs)
    context = make_context(baseline=residual, calibration=unlabelled, training=unlabelled)
    model = model_of(residual, images)
    with torch.no_grad():
        inputs = torch.from_numpy(images.inputs["image"])
        expected = residual(inputs).softmax(1)
        rounded = copy.deepcopy(residual)
        with fake_quantized(rounded, 2, 0):
            pass
        before = float((rounded(inputs).softmax(1) - expected).abs().mean())
    settings = TrainingSettings(epochs=8, learning_rate=2e-3)
    result = QuantizationAwareTraining(bits=2, activation_bits=0, training=settings)(model, context)
    with torch.no_grad():
        after = float((result.model.torch_module()(inputs).softmax(1) - expected).abs().mean())
    assert after < before / 2


def test_static_int8_stores_just_the_weights_that_were_learned(residual, images, make_context) -> None:
    context = make_context(baseline=residual)
    trained = QuantizationAwareTraining(training=SHORT)(model_of(residual, images), context).model
    exported = Export()(trained, context).model
    quantized = StaticInt8(reduce_range=False)(exported, context).model
    from onnx import load, numpy_helper

    graph = load(quantized.onnx_path()).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            codes = stored[node.input[0]]
            if codes.dtype == np.int8 and codes.shape == (4, 32):
                scales = stored[node.input[1]].reshape(-1, 1)
                learned = trained.torch_module().head.weight.detach().numpy()
                np.testing.assert_allclose(codes * scales, learned, atol=float(scales.max()) * 1e-3)
                return
    raise AssertionError("the head's weights were not found")


def test_the_gradient_of_a_rounded_weight_is_that_of_the_weight() -> None:
    weight = torch.randn(4, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (RoundedWeight(4)(weight) * 3).sum().backward()
    assert torch.equal(weight.grad, torch.full((4, 8), 3.0))


def test_a_range_follows_the_batches_only_while_training() -> None:
    hook, layer = RoundedInput(8), nn.Linear(2, 1)
    hook(layer.train(), (torch.tensor([[0.0, 1.0]]),))
    hook(layer, (torch.tensor([[0.0, 2.0]]),))
    assert hook.high == pytest.approx(1.01)
    hook(layer.eval(), (torch.tensor([[-5.0, 9.0]]),))
    assert (hook.low, hook.high) == (0.0, pytest.approx(1.01))


def test_values_outside_the_range_are_clipped() -> None:
    hook, layer = RoundedInput(2), nn.Linear(2, 1).eval()
    hook(layer, (torch.tensor([[0.0, 3.0]]),))
    [clipped] = hook(layer, (torch.tensor([[-1.0, 7.0]]),))
    assert clipped.tolist() == [[0.0, 3.0]]


def test_a_module_without_layers_is_refused(images, context) -> None:
    model = model_of(nn.Sequential(nn.Flatten()), images)
    with pytest.raises(PassError, match="no convolution or linear layer"):
        QuantizationAwareTraining()(model, context)


@pytest.mark.parametrize("options", [{"bits": 1}, {"bits": 9}, {"activation_bits": 1}])
def test_numbers_of_bits_that_mean_nothing_are_refused(options) -> None:
    with pytest.raises(RecipeError, match="bits is"):
        QuantizationAwareTraining(**options)
