"""A server whose memory the kernel limits: what would not fit is refused, who takes too much dies alone."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import encode_inputs
from flyweight.server.runtime.kills import SCORE_ABOVE_SERVER
from tests.system.stress import models
from tests.system.stress.cgroups import Limited, limited
from tests.system.stress.serving import PATIENCE_SECONDS, Served, eventually, serving

pytestmark = pytest.mark.system

MEGABYTE = 1_000_000
LIMIT_BYTES = 300 * MEGABYTE
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture
def cgroup() -> Iterator[Limited]:
    with limited(LIMIT_BYTES) as made:
        yield made


def publish_filler(repository: Path, variant: str, *, fills: bool) -> None:
    """Publish a variant of "filler": for a count n it adds up n ones that it keeps, or says n at once."""
    n = helper.make_tensor_value_info("n", TensorProto.INT64, [1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    one = helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0])
    nodes = [
        helper.make_node("ConstantOfShape", ["n"], ["ones"], value=one),
        helper.make_node("ReduceSum", ["ones"], ["y"], keepdims=1),
    ]
    if not fills:
        nodes = [helper.make_node("Cast", ["n"], ["y"], to=TensorProto.FLOAT)]
    graph = helper.make_graph(nodes, "filler", [n], [y])
    opset = helper.make_opsetid("", 18)
    content = helper.make_model(graph, opset_imports=[opset], ir_version=10)
    onnx.checker.check_model(content)
    models.publish_raw(
        repository, "filler", variant, lambda folder: onnx.save(content, folder / "model.onnx")
    )


def ask(served: Served, model: str, name: str, values: "np.ndarray", variant: str = "") -> ModelInferResponse:
    request = ModelInferRequest(model_name=model, model_version=variant)
    encode_inputs(request, {name: values})
    with grpc.insecure_channel(served.address) as channel:
        infer = channel.unary_unary(INFER)  # pyright: ignore[reportCallIssue] -- bytes both ways
        body: bytes = infer(request.SerializeToString(), timeout=PATIENCE_SECONDS)
    return ModelInferResponse.FromString(body)


def fill(served: Served, count: int, variant: str = "") -> ModelInferResponse:
    return ask(served, "filler", "n", np.array([count], np.int64), variant)


def code_of_filling(served: Served, count: int, variant: str = "") -> grpc.StatusCode:
    try:
        fill(served, count, variant)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return grpc.StatusCode.OK


@pytest.mark.parametrize("runtime", ["inline", "process"])
def test_a_load_that_would_not_fit_is_refused_and_the_rest_is_served(
    cgroup: Limited, tmp_path: Path, runtime: str
) -> None:
    repository = tmp_path / "repository"
    models.publish(repository, "tiny", "baseline", 2.0)
    with serving(repository, "--runtime", runtime, folder=tmp_path, wrapper=cgroup.wrapper) as served:

        def fill_with_zeros(folder: Path) -> None:
            with (folder / "model.onnx").open("wb") as file:
                file.truncate(400 * MEGABYTE)

        models.publish_raw(repository, "large", "1", fill_with_zeros)
        said = eventually(served.log.read_text, lambda text: "large/1 needs about" in text, "it is refused")
        assert "large/1 needs about 760 MB of memory (by the 400 MB of its files)" in said
        assert "of the 300 MB of the cgroup only " in said
        response = ask(served, "tiny", "x", np.ones((1, models.WIDTH), np.float32))
        assert response.model_version == "baseline"
        assert cgroup.oom_kills() == 0
        assert served.tracebacks() == []


def test_workers_are_taken_before_the_server(tmp_path: Path) -> None:
    models.publish(tmp_path / "repository", "tiny", "baseline", 2.0)
    with serving(tmp_path / "repository", "--runtime", "process", folder=tmp_path) as served:
        [worker] = served.workers()
        server, first = (int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (served.pid, worker))
        assert first == min(1000, server + SCORE_ABOVE_SERVER)


def test_a_worker_that_takes_too_much_dies_is_told_of_and_comes_again(
    cgroup: Limited, tmp_path: Path
) -> None:
    repository = tmp_path / "repository"
    models.publish(repository, "tiny", "baseline", 2.0)
    publish_filler(repository, "baseline", fills=True)
    publish_filler(repository, "modest", fills=False)
    too_many = LIMIT_BYTES // 4
    with serving(repository, "--runtime", "process", folder=tmp_path, wrapper=cgroup.wrapper) as served:
        assert len(served.workers()) == 3
        assert fill(served, 5, "baseline").model_version == "baseline"
        assert code_of_filling(served, too_many, "baseline") is grpc.StatusCode.UNAVAILABLE
        # The kernel may take one more before it sees what the first gave back, and never the server.
        assert cgroup.oom_kills() >= 1
        assert served.is_alive()
        eventually(
            served.log.read_text,
            lambda text: (
                "The worker of filler/baseline was killed by the kernel (SIGKILL) because the memory of its "
                "cgroup was used up." in text
            ),
            "the death is told with its reason",
        )
        eventually(
            lambda: code_of_filling(served, 5, "baseline"),
            lambda code: code is grpc.StatusCode.OK,
            "another worker takes its place",
        )
        ones = np.ones((1, models.WIDTH), np.float32)
        assert ask(served, "tiny", "x", ones).model_version == "baseline"
        assert served.tracebacks() == []


def test_what_a_killed_worker_was_asked_falls_back_if_it_may(cgroup: Limited, tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish_filler(repository, "baseline", fills=True)
    publish_filler(repository, "modest", fills=False)
    models.set_traffic(repository, "filler", "baseline: baseline\nfallback: modest\n")
    with serving(repository, "--runtime", "process", folder=tmp_path, wrapper=cgroup.wrapper) as served:
        response = fill(served, LIMIT_BYTES // 4)
        assert response.model_version == "modest"
        assert response.parameters["flyweight_reason"].string_param == "fallback"
        assert cgroup.oom_kills() >= 1


READING = """
import os, sys
from flyweight.server.runtime.headroom import read_headroom
before = read_headroom()
with open(sys.argv[1], "wb") as file:
    file.write(os.urandom(100_000_000))
    os.fsync(file.fileno())
for _ in range(3):
    with open(sys.argv[1], "rb") as file:
        while file.read(1 << 20):
            pass
after = read_headroom()
held = bytearray(os.urandom(50_000_000))
print(before.limit_bytes, before.left_bytes, after.left_bytes, read_headroom().left_bytes)
"""


def test_page_cache_is_no_use_of_memory_and_memory_is(cgroup: Limited, tmp_path: Path) -> None:
    """A published model is read twice, for its digests and for its session: the kernel calls that active."""
    command = [*cgroup.wrapper, sys.executable, "-c", READING, str(tmp_path / "file")]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    limit, before, after_reading, after_taking = map(int, done.stdout.split())
    # The kernel rounds a limit to pages.
    assert 0 <= LIMIT_BYTES - limit < 65536
    assert 0 < before < limit
    assert abs(before - after_reading) < 10 * MEGABYTE
    assert after_reading - after_taking > 45 * MEGABYTE
