"""Tiny ONNX models and repositories of them, for every test of the server."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.protos.manifest.v1.manifest_pb2 import (
    Golden,
    Lineage,
    SessionSettings,
    TensorSignature,
    VariantManifest,
)
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, publish_variant, write_golden

# What onnxruntime 1.31 reads without complaint.
OPSET, IR_VERSION = 18, 10


class TinyModel(Protocol):
    """Writes an ONNX file with y = scale * x, x and y of FP32 and the given shape, and returns its path."""

    def __call__(self, path: Path, scale: float = 2.0, shape: Sequence[int | str] = ("n", 4)) -> Path: ...


class SaveGraph(Protocol):
    """Writes an ONNX file from nodes, inputs and outputs as (name, type, shape), and initializers."""

    def __call__(
        self,
        path: Path,
        nodes: Sequence[onnx.NodeProto],
        inputs: Sequence[tuple[str, int, Sequence[int | str | None]]],
        outputs: Sequence[tuple[str, int, Sequence[int | str | None]]],
        initializers: Sequence[onnx.TensorProto] = (),
    ) -> Path: ...


class Publish(Protocol):
    """Publishes a variant with y = scale * x and golden samples; `golden_scale` makes the samples wrong."""

    def __call__(
        self,
        variant: str,
        scale: float = 2.0,
        *,
        model: str = "tiny",
        parent: str = "",
        golden_scale: float | None = None,
        edit: Callable[[VariantManifest], None] | None = None,
    ) -> Path: ...


def _save_graph(
    path: Path,
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Sequence[int | str | None]]],
    outputs: Sequence[tuple[str, int, Sequence[int | str | None]]],
    initializers: Sequence[onnx.TensorProto] = (),
) -> Path:
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        list(initializers),
    )
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="flyweight",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def _tiny_model(path: Path, scale: float = 2.0, shape: Sequence[int | str] = ("n", 4)) -> Path:
    return _save_graph(
        path,
        [helper.make_node("Mul", ["x", "scale"], ["y"])],
        [("x", TensorProto.FLOAT, shape)],
        [("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(np.array(scale, np.float32), "scale")],
    )


@pytest.fixture
def save_graph() -> SaveGraph:
    return _save_graph


@pytest.fixture
def tiny_model() -> TinyModel:
    return _tiny_model


@pytest.fixture
def repository_root(tmp_path: Path) -> Path:
    """Return an empty repository."""
    root = tmp_path / "repository"
    root.mkdir()
    return root


@pytest.fixture
def publish(repository_root: Path) -> Publish:
    """Return a function that publishes variants of the model "tiny" in `repository_root`."""

    def publish_tiny(
        variant: str,
        scale: float = 2.0,
        *,
        model: str = "tiny",
        parent: str = "",
        golden_scale: float | None = None,
        edit: Callable[[VariantManifest], None] | None = None,
    ) -> Path:
        x = np.arange(4, dtype=np.float32).reshape(1, 4) + 1
        manifest = VariantManifest(
            model=model,
            variant=variant,
            created="2026-01-01T00:00:00Z",
            lineage=Lineage(parent=parent),
            session=SessionSettings(intra_op_threads=1),
            inputs=[TensorSignature(name="x", datatype="FP32", shape=[-1, 4])],
            outputs=[TensorSignature(name="y", datatype="FP32", shape=[-1, 4])],
            golden=Golden(file=GOLDEN_FILE, relative_tolerance=1e-6),
        )
        if edit is not None:
            edit(manifest)

        def fill(folder: Path) -> None:
            _tiny_model(folder / "model.onnx", scale)
            expected = x * np.float32(scale if golden_scale is None else golden_scale)
            write_golden(folder, GoldenSamples({"x": x}, {"y": expected}))

        return publish_variant(repository_root, manifest, fill)

    return publish_tiny


@pytest.fixture
def repository(repository_root: Path, publish: Publish) -> Path:
    """Return a repository with the model "tiny": the baseline doubles, the variant "int8" triples."""
    publish("baseline", 2.0)
    publish("int8", 3.0, parent="baseline")
    return repository_root


@pytest.fixture
def plain_repository(repository_root: Path) -> Path:
    """Return a plain Triton repository: the model "plain", whose versions 1 and 2 multiply by 1 and 2."""
    for version in (1, 2):
        _tiny_model(repository_root / "plain" / str(version) / "model.onnx", float(version))
    return repository_root
