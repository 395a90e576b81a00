"""Fixtures of the importer's tests: small graphs, made node by node, and skipping all of it without torch."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

HERE = Path(__file__).parent
collect_ignore_glob = [] if find_spec("torch") else ["test_*.py"]

TYPES = {np.dtype(np.float32): 1, np.dtype(np.int64): 7, np.dtype(np.bool_): 9, np.dtype(np.int32): 6}
Shape = Sequence[int | str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.torch)


@pytest.fixture
def make_graph(tmp_path: Path) -> Callable[..., Path]:
    """Write a graph: its nodes, the shapes of its inputs, its weights, its outputs."""

    def make(
        nodes: Sequence[onnx.NodeProto],
        inputs: Mapping[str, Shape],
        weights: Mapping[str, np.ndarray[Any, Any]],
        outputs: Sequence[str],
        opset: int = 17,
        integers: bool = False,
    ) -> Path:
        graph = helper.make_graph(
            list(nodes),
            "graph",
            [
                helper.make_tensor_value_info(name, 7 if integers else 1, shape)
                for name, shape in inputs.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        inferred = onnx.shape_inference.infer_shapes(model)
        path = tmp_path / f"graph{len(list(tmp_path.iterdir()))}.onnx"
        onnx.save(inferred, path)
        return path

    return make


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)
