"""Weight sharing in ONNX graphs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.share.grouping import Kind, Scope, Sharing
from flyweight.compressor.passes.share.share import Share
from flyweight.compressor.recipe import load_recipes
from flyweight.compressor.sessions import Session, SessionSettings


def weights_of(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


@pytest.fixture
def apply(context_of: Callable[[DataSet], Context], rows: Any) -> Callable[..., Path]:
    """Return a function that applies a pass to a file and returns the new file."""
    context = context_of(rows(8, x=(16,)))
    return lambda path, step: step(Model(path=path), context).model.onnx_path()


def test_each_layer_gets_a_codebook_of_its_own(models: Any, apply: Any) -> None:
    path = models.mlp()
    before, after = weights_of(path), weights_of(apply(path, Share(Sharing(bits=3))))
    books = {name: set(array.ravel().tolist()) for name, array in after.items()}
    assert {name: len(book) for name, book in books.items()} == {"w1": 8, "w2": 8}
    assert not books["w1"] & books["w2"]
    for name, array in after.items():
        assert np.abs(array - before[name]).max() < 0.3 * np.abs(before[name]).max()


def test_a_codebook_may_reach_over_the_model_or_a_group(models: Any, apply: Any) -> None:
    path = models.mlp()
    for sharing in (Sharing(bits=4, scope=Scope.MODEL), Sharing(bits=4, groups=("w?",))):
        after = weights_of(apply(path, Share(sharing)))
        assert len(np.unique(np.concatenate([array.ravel() for array in after.values()]))) <= 16


def test_convolutions_have_bits_of_their_own(models: Any, apply: Any) -> None:
    after = weights_of(apply(models.convnet(), Share(Sharing(bits=2, conv_bits=4, scope=Scope.KIND))))
    assert len(np.unique(np.concatenate([after["w1"].ravel(), after["w2"].ravel()]))) == 16
    assert len(np.unique(after["w3"])) == 4


def test_biases_are_shared_when_asked(digits: tuple[Path, DataSet], apply: Any) -> None:
    path, _ = digits
    for bits, most in ((0, 300), (3, 8)):
        after = weights_of(apply(path, Share(Sharing(bias_bits=bits))))
        biases = np.concatenate([after[name] for name in ("b0", "b1", "b2")])
        assert (len(np.unique(biases)) <= 8) == (bits == 3), most


def test_zeros_that_pruning_left_stay(models: Any, apply: Any) -> None:
    path = models.mlp()
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        values[np.abs(values) < np.quantile(np.abs(values), 0.8)] *= -0.0
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    before, after = weights_of(path), weights_of(apply(path, Share(Sharing(bits=3))))
    for name, array in after.items():
        assert ((array == 0) == (before[name] == 0)).all()
        assert not np.signbit(array[array == 0]).any()
        assert len(np.unique(array)) <= 8


def test_a_trained_network_hardly_notices_five_bits(digits: tuple[Path, DataSet], apply: Any) -> None:
    path, data = digits
    shared = apply(path, Share())
    answers = [
        Session(file, SessionSettings()).run({"x": data.inputs["x"]})["scores"].argmax(axis=1)
        for file in (path, shared)
    ]
    assert (answers[0] == answers[1]).mean() > 0.99


@pytest.mark.parametrize("make", ["choosing", "constants", "half"])
def test_weights_are_found_wherever_they_are(models: Any, apply: Any, make: str, rows: Any) -> None:
    """In the branches of an If, in Constant nodes, and behind the cast of fp16 storage."""
    path = models.choosing() if make == "choosing" else models.mlp(constants=make == "constants")
    if make == "half":
        from flyweight.compressor.passes.quantize.fp16 import Fp16Storage

        path = apply(path, Fp16Storage())
    shared = apply(path, Share(Sharing(bits=2)))
    found = Share(Sharing(bits=2))(Model(path=shared), Context(models.folder / "w", rows(8, x=(16,))))
    assert "2 tensors" in found.notes[0]
    assert "no value changed" in found.notes[0]


def test_a_model_without_weights_is_refused(models: Any, apply: Any) -> None:
    with pytest.raises(PassError, match="no floating-point weights of layers to share"):
        apply(models.identity(onnx.TensorProto.FLOAT, ["n", 4]), Share())


def test_a_weight_that_is_no_number_is_named(models: Any, apply: Any) -> None:
    path = models.mlp()
    model = onnx.load(path)
    values = numpy_helper.to_array(model.graph.initializer[1]).copy()
    values[0, 0] = np.nan
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "w2"))
    onnx.save(model, path)
    with pytest.raises(PassError, match="'w2' holds values that are not finite"):
        apply(path, Share())


@pytest.mark.parametrize("wrong", [{"bits": 0}, {"bits": 9}, {"conv_bits": 0}, {"bias_bits": -1}])
def test_bits_out_of_range_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match=r"For sharing, \w+ is from [01] to 8"):
        Sharing(**wrong)


def test_of_several_patterns_the_first_counts() -> None:
    sharing = Sharing(bits=4, groups=("encoder.*", "*.weight"))
    assert sharing.group_of("encoder.0.weight", Kind.PRODUCT) == ("group encoder.*", 4)
    assert sharing.group_of("head.weight", Kind.CONVOLUTION) == ("group *.weight", 4)
    assert sharing.group_of("head.bias", Kind.VECTOR)[1] == 0


def test_recipes_name_the_passes(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("name: small\npasses:\n  - share: {sharing: {bits: 4, scope: model}}\n  - encode\n")
    recipe = load_recipes(path)["small"]
    assert recipe.passes[0] == Share(Sharing(bits=4, scope=Scope.MODEL))  # type: ignore[attr-defined]
