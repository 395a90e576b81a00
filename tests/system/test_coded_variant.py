"""A real server that serves a coded variant, and does not mind a damaged one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper

from flyweight.protos.coded import decode_file, encode
from flyweight.protos.manifest.v1.manifest_pb2 import Golden, VariantManifest
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, publish_variant, write_golden

pytestmark = pytest.mark.system

CODED = "model.onnx.fw"
READY = 'flyweight_variant_ready{model="sparse",variant="coded"}'
FAILED = 'flyweight_loads_total{model="sparse",outcome="failed",variant="coded"}'
OK = 'flyweight_loads_total{model="sparse",outcome="ok",variant="coded"}'


def model_bytes(seed: int) -> bytes:
    """Return a product x [n, 64] -> y [n, 32] whose matrix is pruned and shared."""
    random = np.random.default_rng(seed)
    values = random.normal(size=15).astype(np.float32)[random.integers(0, 15, (64, 32))]
    weights = np.where(random.random((64, 32)) < 0.2, values, np.float32(0))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "sparse",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def publish(root: Path, seed: int, variant: str = "coded", *, damaged: bool = False) -> Path:
    content = model_bytes(seed)
    x = np.ones((1, 64), np.float32)
    (y,) = onnxruntime.InferenceSession(content).run(None, {"x": x})
    golden = Golden(file=GOLDEN_FILE, relative_tolerance=1e-5)

    def fill(folder: Path) -> None:
        coded = encode(content)
        (folder / CODED).write_bytes(coded[:30] + bytes([coded[30] ^ 1]) + coded[31:] if damaged else coded)
        write_golden(folder, GoldenSamples({"x": x}, {"y": y}))

    return publish_variant(root, VariantManifest(model="sparse", variant=variant, golden=golden), fill)


def ask(address: str, x: np.ndarray) -> np.ndarray:
    client = triton.InferenceServerClient(address)
    tensor = triton.InferInput("x", list(x.shape), "FP32")
    tensor.set_data_from_numpy(x)
    answer = client.infer("sparse", [tensor], model_version="coded").as_numpy("y")
    client.close()
    return answer


def test_a_coded_variant_is_served_and_survives_a_damaged_successor(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    folder = publish(root, seed=0)
    x = np.random.default_rng(5).normal(size=(16, 64)).astype(np.float32)
    server = start_server(root)
    (expected,) = onnxruntime.InferenceSession(bytes(decode_file(folder / CODED))).run(None, {"x": x})
    np.testing.assert_array_equal(ask(server.address, x), expected)

    publish(root, seed=1, damaged=True)
    server.await_metric(lambda samples: samples.get(FAILED, 0) >= 1)
    assert server.scrape()[READY] == 1
    np.testing.assert_array_equal(ask(server.address, x), expected)
    assert "model.onnx.fw cannot be decoded: " in server.log.read_text()

    folder = publish(root, seed=2)
    server.await_metric(lambda samples: samples.get(OK, 0) >= 2)
    (expected,) = onnxruntime.InferenceSession(bytes(decode_file(folder / CODED))).run(None, {"x": x})
    np.testing.assert_array_equal(ask(server.address, x), expected)


def test_a_coded_variant_in_a_repository_that_nobody_may_write(
    start_server: Callable[..., Any], tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    folder = publish(root, seed=3)
    for path in (*folder.iterdir(), folder, folder.parent, root):
        path.chmod(0o500 if path.is_dir() else 0o400)
    try:
        server = start_server(root)
        x = np.ones((2, 64), np.float32)
        (expected,) = onnxruntime.InferenceSession(model_bytes(3)).run(None, {"x": x})
        np.testing.assert_array_equal(ask(server.address, x), expected)
    finally:
        for path in (root, folder.parent, folder):
            path.chmod(0o700)
