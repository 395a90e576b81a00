"""A real server with `--runtime process`: what is left of it, and what one worker's death costs."""

import os
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import decode_tensors, encode_inputs
from flyweight.server.runtime.process.factory import ProcessFactory
from flyweight.server.runtime.seam import SessionSettings
from tests.open_files import no_file_left

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 60
VERY_LONG = 50_000_000


def children_of(pid: int) -> list[int]:
    """Return a process's children, those of its threads included."""
    return [
        int(child)
        for path in Path(f"/proc/{pid}/task").glob("*/children")
        for child in path.read_text().split()
    ]


def await_ends(pidfds: list[int]) -> None:
    """Wait until every process has ended, and close what tells of it."""
    for pidfd in pidfds:
        assert select.select([pidfd], [], [], PATIENCE_SECONDS)[0], "a worker outlived its server"
        os.close(pidfd)


def ask(channel: grpc.Channel, variant: str = "") -> list[list[float]]:
    request = ModelInferRequest(model_name="tiny", model_version=variant)
    encode_inputs(request, {"x": np.ones((1, 4), np.float32)})
    infer = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    response = ModelInferResponse.FromString(infer(request.SerializeToString(), timeout=PATIENCE_SECONDS))
    y: list[list[float]] = decode_tensors(response.outputs, response.raw_output_contents)["y"].tolist()
    return y


def worker_of(server: Any, variant: str) -> int:
    """Return the worker of a variant by its command line, which names the file."""
    [found] = [
        pid
        for pid in children_of(server.process.pid)
        if f"/{variant}/model.onnx".encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def test_a_killed_server_leaves_no_process_and_no_shared_memory(
    start_server: Callable[..., Any], server_repository: Path, slow_repository: Path
) -> None:
    (slow_repository / "slow").rename(server_repository / "slow")
    server = start_server(server_repository, "--runtime", "process")
    with grpc.insecure_channel(server.address) as channel:
        assert ask(channel, "int8") == [[3.0] * 4]
        # One is in a run without end, one is stopped, one waits.
        request = ModelInferRequest(model_name="slow")
        encode_inputs(request, {"x": np.ones((1, 256), np.float32), "n": np.array([VERY_LONG], np.int64)})
        endless = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer").future(
            request.SerializeToString(), timeout=PATIENCE_SECONDS
        )
        server.await_metric(
            lambda seen: (
                seen.get('flyweight_requests_in_flight{model="slow",role="baseline",variant="1"}') == 1
            )
        )
        workers = children_of(server.process.pid)
        assert len(workers) == 3
        os.kill(worker_of(server, "baseline"), signal.SIGSTOP)
        pidfds = [os.pidfd_open(pid) for pid in workers]
        for pid in (server.process.pid, *workers):
            # What they share has no name that could be left behind.
            mapped = Path(f"/proc/{pid}/maps").read_text()
            assert "/memfd:flyweight-room (deleted)" in mapped
            assert "/dev/shm/" not in mapped
        server.signal(signal.SIGKILL)
        server.wait()
        await_ends(pidfds)
        assert endless.code() is not grpc.StatusCode.OK


def test_a_server_that_is_told_to_stop_ends_its_workers_first(
    start_server: Callable[..., Any], server_repository: Path
) -> None:
    server = start_server(server_repository, "--runtime", "process")
    pidfds = [os.pidfd_open(pid) for pid in children_of(server.process.pid)]
    assert len(pidfds) == 2
    server.signal()
    assert server.wait() == 0
    assert all(select.select([pidfd], [], [], 0)[0] for pidfd in pidfds)
    await_ends(pidfds)
    assert "Traceback" not in server.log.read_text()


def test_a_killed_worker_costs_its_own_variant_a_second(
    start_server: Callable[..., Any],
    server_repository: Path,
    wait_for: Callable[[Callable[[], Any], Callable[[Any], bool]], Any],
) -> None:
    server = start_server(server_repository, "--runtime", "process")
    with grpc.insecure_channel(server.address) as channel:
        before = worker_of(server, "int8")
        os.kill(before, signal.SIGKILL)
        answers: list[str] = []

        def try_again() -> str:
            assert ask(channel, "baseline") == [[2.0] * 4]
            try:
                ask(channel, "int8")
            except grpc.RpcError as error:
                answers.append(error.code().name)
            else:
                answers.append("OK")
            return answers[-1]

        wait_for(try_again, lambda answer: answer == "OK")
        assert set(answers) <= {"UNAVAILABLE", "OK"}
        assert worker_of(server, "int8") != before
    assert "The worker of tiny/int8 was killed by SIGKILL." in server.log.read_text()


def test_a_broken_model_is_one_variant_that_does_not_load(
    start_server: Callable[..., Any], server_repository: Path
) -> None:
    broken = server_repository / "broken" / "1" / "model.onnx"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"not a model")
    server = start_server(server_repository, "--runtime", "process")
    with grpc.insecure_channel(server.address) as channel:
        assert ask(channel, "baseline") == [[2.0] * 4]
    assert server.counts == (1, 2)
    assert "broken/1/model.onnx cannot be loaded: " in server.log.read_text()


def test_fifty_loads_and_unloads_leave_no_file_open(tmp_path: Path, publish: Callable[..., Path]) -> None:
    publish("baseline", 2.0)
    factory = ProcessFactory(cores=2)
    x = np.ones((1, 4), np.float32)

    def cycle() -> None:
        runtime = factory.load(
            tmp_path / "repository" / "tiny" / "baseline" / "model.onnx", SessionSettings()
        )
        assert runtime.run({"x": x}).outputs["y"].tolist() == [[2.0] * 4]
        runtime.close()

    cycle()
    # What other tests of this process left is theirs.
    children = set(children_of(os.getpid()))
    with no_file_left():
        for _ in range(50):
            cycle()
    assert set(children_of(os.getpid())) <= children
