"""One suite, two servers: what a user's tests see of the fake is what the real server does.

The real one is a process of its own, `flyweight serve` on a repository with two variants.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.client import (
    Client,
    ClientError,
    InvalidRequest,
    NotFound,
    TensorInfo,
)
from flyweight.client.testing import FakeModel, serve_fake

WEIGHTS = {
    "baseline": np.float32([[1, 0], [0, 1], [1, 1]]),
    "int8": np.float32([[2, 0], [0, 2], [2, 2]]),
}
X = np.float32([[1, 2, 3], [4, 5, 6]])


def write_repository(root: Path) -> None:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper
    for variant, weights in WEIGHTS.items():
        graph = make.make_graph(
            [make.make_node("MatMul", ["x", "w"], ["y"])],
            "linear",
            [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["rows", 3])],
            [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["rows", 2])],
            [onnx.numpy_helper.from_array(weights, "w")],
        )
        folder = root / "linear" / variant
        folder.mkdir(parents=True)
        onnx.save(
            make.make_model(graph, opset_imports=[make.make_opsetid("", 17)], ir_version=9),
            folder / "model.onnx",
        )


@contextmanager
def real(folder: Path) -> Iterator[str]:
    write_repository(folder)
    command = [sys.executable, "-m", "flyweight.client.cli.main", "serve", str(folder)]
    with subprocess.Popen(
        [*command, "--port", "0", "--metrics-port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            match = re.search(r"grpc=(\S+)", line)
            assert match, f"{line!r} {process.communicate()[1]}"
            yield match[1]
        finally:
            process.terminate()
            process.communicate(timeout=60)


@contextmanager
def fake(_: Path) -> Iterator[str]:
    def linear(variant: str) -> Callable[[Any], Any]:
        return lambda inputs: {"y": inputs["x"] @ WEIGHTS[variant]}

    model = FakeModel(
        variants={variant: linear(variant) for variant in WEIGHTS},
        inputs=(TensorInfo("x", "FP32", (-1, 3)),),
        outputs=(TensorInfo("y", "FP32", (-1, 2)),),
    )
    with serve_fake({"linear": model}) as server:
        yield server.address


@pytest.fixture(scope="module", params=[fake, pytest.param(real, marks=pytest.mark.system)])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with request.param(tmp_path_factory.mktemp("repository")) as address, Client(address) as found:
        yield found


def test_the_baseline_answers_what_is_not_pinned(client: Client) -> None:
    prediction = client.predict("linear", X, request_id="r1")
    assert prediction.output.tolist() == (X @ WEIGHTS["baseline"]).tolist()
    assert (prediction.model, prediction.variant, prediction.role) == ("linear", "baseline", "baseline")
    assert (prediction.reason, prediction.request_id) == ("default", "r1")


def test_a_pinned_variant_answers(client: Client) -> None:
    prediction = client.predict("linear", {"x": X}, variant="int8")
    assert prediction.output.tolist() == (X @ WEIGHTS["int8"]).tolist()
    assert (prediction.variant, prediction.role, prediction.reason) == ("int8", "pinned", "pinned")


def test_both_describe_the_model_alike(client: Client) -> None:
    info = client.model("linear")
    assert (info.name, info.variants) == ("linear", ("baseline", "int8"))
    assert info.inputs == (TensorInfo("x", "FP32", (-1, 3)),)
    assert info.outputs == (TensorInfo("y", "FP32", (-1, 2)),)
    assert client.config("linear").name == "linear"
    states = {(s.model, s.variant, s.state) for s in client.models()}
    assert states == {("linear", "baseline", "READY"), ("linear", "int8", "READY")}


def test_both_are_ready(client: Client) -> None:
    assert client.is_live()
    assert client.is_ready()
    assert client.is_model_ready("linear", "int8")
    assert not client.is_model_ready("nobody")
    assert not client.is_model_ready("linear", "fp4")


def test_both_count_what_each_variant_answered(client: Client) -> None:
    before = {counted.variant: counted.executions for counted in client.statistics("linear")}
    client.predict("linear", X, variant="int8")
    after = {counted.variant: counted.executions for counted in client.statistics("linear")}
    assert after == {**before, "int8": before["int8"] + 1}


@pytest.mark.parametrize(
    ("model", "inputs", "options", "error", "word"),
    [
        ("nobody", {"x": X}, {}, NotFound, "nobody"),
        ("linear", {"x": X}, {"variant": "fp4"}, NotFound, "fp4"),
        ("linear", {"z": X}, {}, InvalidRequest, "x"),
        ("linear", {"x": X, "z": X}, {}, InvalidRequest, "z"),
        ("linear", {}, {}, InvalidRequest, "x"),
        ("linear", {"x": X.astype(np.float64)}, {}, InvalidRequest, "FP64"),
        ("linear", {"x": X[:, :2]}, {}, InvalidRequest, "x"),
        ("linear", {"x": X[0]}, {}, InvalidRequest, "x"),
        ("linear", {"x": X}, {"outputs": ["q"]}, InvalidRequest, "q"),
    ],
    ids=["model", "variant", "name", "superfluous", "missing", "datatype", "length", "rank", "output"],
)
def test_both_refuse_alike(
    client: Client, model: str, inputs: Any, options: Any, error: type[ClientError], word: str
) -> None:
    with pytest.raises(error) as caught:
        client.predict(model, inputs, **options)
    assert type(caught.value) is error
    assert word in caught.value.details
