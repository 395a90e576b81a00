"""The pass `import` among others: from a file to a file."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet
from flyweight.compressor.importer.surface import surface_of
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.distill.soft_labels import FineTune
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.importing import Import
from flyweight.compressor.passes.prune.structured import StructuredPrune
from flyweight.compressor.passes.quantize.static_int8 import StaticInt8
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.training import TrainingSettings

Make = Callable[..., Path]
SHORT = TrainingSettings(epochs=1)


class Transformer(nn.Module):
    """One layer of attention over an embedding, two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.parts = nn.Linear(16, 48)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        rows, length, _ = x.shape
        split = self.parts(x).view(rows, length, 3, 2, 8).permute(2, 0, 3, 1, 4)
        scores = split[0] @ split[1].transpose(-1, -2) / 8**0.5
        scores = scores.masked_fill(mask[:, None, None] == 0, -1e9)
        mixed = (torch.softmax(scores, -1) @ split[2]).transpose(1, 2).reshape(rows, length, 16)
        weights = mask[..., None].to(x.dtype)
        x = (self.norm(x + mixed) * weights).sum(1) / weights.sum(1)
        return self.head(x)


def residual_graph(make_graph: Make) -> Path:
    """Write a small residual network of 32 channels."""
    random = np.random.default_rng(0)
    shapes = {"stem": (32, 1, 3, 3), "inner": (32, 32, 3, 3), "outer": (32, 32, 3, 3), "head": (4, 32)}
    weights = {
        name: (random.normal(size=shape) / np.prod(shape[1:]) ** 0.5).astype(np.float32)
        for name, shape in shapes.items()
    }
    norm = {name: np.full(32, value, np.float32) for name, value in (("g", 1), ("b_", 0), ("m", 0), ("v", 1))}
    return make_graph(
        [
            helper.make_node("Conv", ["image", "stem"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["wide"]),
            helper.make_node("Conv", ["wide", "inner"], ["b"], pads=[1, 1, 1, 1]),
            helper.make_node("BatchNormalization", ["b", "g", "b_", "m", "v"], ["c"]),
            helper.make_node("Relu", ["c"], ["d"]),
            helper.make_node("Conv", ["d", "outer"], ["e"], pads=[1, 1, 1, 1]),
            helper.make_node("Add", ["e", "wide"], ["sum"]),
            helper.make_node("Relu", ["sum"], ["f"]),
            helper.make_node("GlobalAveragePool", ["f"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "head"], ["y"], transB=1),
        ],
        {"image": ["batch", 1, 8, 8]},
        {**weights, **norm},
        ["y"],
    )


def plain_context(
    folder: Path, arrays: Mapping[str, np.ndarray], labels: np.ndarray | None = None
) -> Context:
    data = DataSet(dict(arrays), labels)
    return Context(workspace=folder, calibration=data, training=data if labels is not None else None)


def with_baseline(path: Path, folder: Path, data: DataSet) -> Context:
    """Return a context with the imported model to learn from, as a run of the compressor has it."""
    first = Context(workspace=folder / "baseline", calibration=data)
    baseline = Import()(Model(path=path), first).model.module
    return Context(workspace=folder / "run", calibration=data, training=data, baseline=baseline)


def test_a_convnet_is_pruned_trained_and_quantized_from_its_file(make_graph: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 4, 64)
    images = random.normal(0, 0.5, (64, 1, 8, 8)).astype(np.float32) + labels[:, None, None, None]
    images = images.astype(np.float32)
    path = residual_graph(make_graph)
    context = with_baseline(path, tmp_path, DataSet({"image": images}, labels))
    recipe = PassSequence([Import(), StructuredPrune(), FineTune(training=SHORT), Export(), StaticInt8()])
    result = recipe(Model(path=path), context)
    original, variant = Session(path, SessionSettings()), Session(result.model.onnx_path(), SessionSettings())
    assert original.signature.difference(variant.signature) is None
    kinds = {node.op_type for node in onnx.load(result.model.onnx_path()).graph.node}
    assert "QuantizeLinear" in kinds
    assert any("lost channels" in note for note in result.notes)
    assert result.model.onnx_path().stat().st_size < 0.5 * path.stat().st_size


def test_a_transformer_is_trained_from_its_file_and_keeps_its_free_axes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    inputs = {"ids": random.integers(0, 20, (32, 6)), "mask": np.ones((32, 6), np.int64)}
    inputs["mask"][::2, 4:] = 0
    torch.manual_seed(0)
    path, free = tmp_path / "model.onnx", torch.export.Dim.DYNAMIC
    with quiet():
        torch.onnx.export(
            Transformer().eval(),
            tuple(torch.from_numpy(array[:2]) for array in inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            dynamic_shapes=({0: free, 1: free}, {0: free, 1: free}),
            verbose=False,
        )
    context = with_baseline(path, tmp_path, DataSet(inputs, random.integers(0, 4, 32)))
    result = PassSequence([Import(), FineTune(training=SHORT), Export()])(Model(path=path), context)
    original, variant = Session(path, SessionSettings()), Session(result.model.onnx_path(), SessionSettings())
    assert original.signature.difference(variant.signature) is None
    longer = {"ids": random.integers(0, 20, (5, 11)), "mask": np.ones((5, 11), np.int64)}
    assert variant.run(longer)["logits"].shape == (5, 4)


def fixed_graph(make_graph: Make, rows: int, length: int) -> Path:
    return make_graph(
        [
            helper.make_node("Flatten", ["x"], ["flat"]),
            helper.make_node("MatMul", ["flat", "w"], ["product"]),
            helper.make_node("Reshape", ["product", "shape"], ["y"]),
        ],
        {"x": [rows, length, 2]},
        {"w": np.ones((2 * length, 3), np.float32), "shape": np.array([rows, 3])},
        ["y"],
    )


def test_a_fixed_batch_is_freed_for_training_and_fixed_again(make_graph: Make, tmp_path: Path) -> None:
    path = fixed_graph(make_graph, 2, 3)
    data = {"x": np.random.default_rng(0).normal(size=(8, 3, 2)).astype(np.float32)}
    context = plain_context(tmp_path / "work", data)
    imported = Import()(Model(path=path), context).model
    assert imported.example["x"].shape == (1, 3, 2)
    assert imported.torch_module()(torch.zeros(7, 3, 2)).shape == (7, 3)
    variant = Export()(imported, context).model.onnx_path()
    assert Session(variant, SessionSettings()).signature.inputs[0].shape == (2, 3, 2)


def test_a_graph_that_mixes_its_rows_stays_at_its_batch(make_graph: Make, tmp_path: Path) -> None:
    path = make_graph(
        [
            helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "mean"], ["y"]),
        ],
        {"x": [2, 3]},
        {},
        ["y"],
    )
    data = {"x": np.random.default_rng(0).normal(size=(8, 3)).astype(np.float32)}
    context = plain_context(tmp_path / "work", data)
    imported = Import()(Model(path=path), context).model
    assert imported.example["x"].shape == (2, 3)
    surface = surface_of(imported.torch_module())
    assert surface is not None
    assert surface.module == {"x": (2, 3)}
    variant = Export()(imported, context).model.onnx_path()
    assert Session(variant, SessionSettings()).signature.inputs[0].shape == (2, 3)


def test_an_input_without_a_batch_axis_survives_the_export(make_graph: Make, tmp_path: Path) -> None:
    path = make_graph(
        [helper.make_node("Mul", ["x", "gain"], ["y"])], {"x": ["batch", 3], "gain": []}, {}, ["y"]
    )
    random = np.random.default_rng(0)
    data = {"x": random.normal(size=(8, 1, 3)).astype(np.float32), "gain": np.ones(8, np.float32)}
    context = plain_context(tmp_path / "work", data)
    imported = Import()(Model(path=path), context).model
    variant = Session(Export()(imported, context).model.onnx_path(), SessionSettings())
    assert Session(path, SessionSettings()).signature.difference(variant.signature) is None
    found = variant.run({"x": np.ones((4, 3), np.float32), "gain": np.asarray(3, np.float32)})
    np.testing.assert_array_equal(found["y"], np.full((4, 3), 3.0))


def test_a_loop_over_a_free_axis_is_not_exported(make_graph: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {name: random.normal(size=(1, 4, 4)).astype(np.float32) for name in ("w", "r")}
    path = make_graph(
        [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node("RNN", ["steps", "w", "r"], ["", "y"], hidden_size=4, activations=["Softsign"]),
        ],
        {"x": ["batch", "length", 4]},
        weights,
        ["y"],
    )
    context = plain_context(tmp_path / "work", {"x": random.normal(size=(8, 3, 4)).astype(np.float32)})
    imported = Import()(Model(path=path), context).model
    with pytest.raises(PassError, match="does not take other lengths than it was traced with"):
        Export()(imported, context)
