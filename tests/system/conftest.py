"""A real `flyweight serve` as its own process, and repositories for it."""

import os
import re
import selectors
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.protos.manifest.v1.manifest_pb2 import Golden, VariantManifest
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, publish_variant, write_golden

PATIENCE_SECONDS = 60
READY = re.compile(r"^flyweight ready grpc=(\S+) metrics=(\S+) models=(\d+) variants=(\d+)$")
COMMAND = Path(sys.executable).with_name("flyweight")
OPSET, IR_VERSION = 18, 10


@dataclass
class ServerProcess:
    """A server under test; `address` and `metrics` are from its ready line."""

    process: subprocess.Popen[str]
    log: Path
    ready_line: str = ""
    address: str = ""
    metrics: str = ""
    counts: tuple[int, int] = (0, 0)
    samples: dict[str, float] = field(default_factory=dict)

    def await_ready(self) -> None:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE_SECONDS), self.log.read_text()
        self.ready_line = self.process.stdout.readline().rstrip("\n")
        found = READY.match(self.ready_line)
        assert found is not None, (self.ready_line, self.log.read_text())
        self.address, self.metrics = found[1], found[2]
        self.counts = int(found[3]), int(found[4])

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self) -> int:
        return self.process.wait(PATIENCE_SECONDS)

    def scrape(self) -> dict[str, float]:
        """Return every sample of /metrics by its name with labels, as Prometheus's text has it."""
        with urllib.request.urlopen(self.metrics, timeout=PATIENCE_SECONDS) as reply:
            lines = reply.read().decode().splitlines()
        pairs = [line.rsplit(" ", 1) for line in lines if line and not line.startswith("#")]
        return {name: float(value) for name, value in pairs}

    def await_metric(self, is_there: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """Scrape until `is_there` holds, and return that scrape."""
        return eventually(self.scrape, is_there)


def eventually(look: Callable[[], Any], is_there: Callable[[Any], bool]) -> Any:
    """Look again and again until `is_there` holds of what is seen; the pause is for the server's sake."""
    pause = threading.Event()
    for _ in range(PATIENCE_SECONDS * 20):
        seen = look()
        if is_there(seen):
            return seen
        pause.wait(0.05)
    pytest.fail(f"not within {PATIENCE_SECONDS} s; last seen: {seen}")


@pytest.fixture
def wait_for() -> Callable[[Callable[[], Any], Callable[[Any], bool]], Any]:
    return eventually


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Return a function that runs `flyweight serve` with arguments, on free ports unless they are given."""
    running: list[ServerProcess] = []

    def start(*arguments: str | Path, ready: bool = True, ports: Sequence[str] = ()) -> ServerProcess:
        log = tmp_path / f"server-{len(running)}.log"
        options = [*(ports or ("--port", "0", "--metrics-port", "0")), "--poll-seconds", "0.05"]
        with log.open("w") as stderr:
            process = subprocess.Popen(
                [COMMAND, "serve", *options, *map(str, arguments)],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        server = ServerProcess(process, log)
        running.append(server)
        if ready:
            server.await_ready()
        return server

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait(PATIENCE_SECONDS)
        assert server.process.stdout is not None
        server.process.stdout.close()


def save(path: Path, graph: onnx.GraphProto) -> None:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())


def save_scaling(path: Path, scale: float) -> None:
    """Write a model with y = scale * x, x of FP32 [n, 4]."""
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy"]
    weights = [numpy_helper.from_array(np.array(scale, np.float32), "scale")]
    node = helper.make_node("Mul", ["x", "scale"], ["y"])
    save(path, helper.make_graph([node], "scaling", tensors[:1], tensors[1:], weights))


@pytest.fixture
def publish(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that publishes a variant of "tiny", y = scale * x, in tmp_path / "repository"."""

    def publish_tiny(variant: str, scale: float, parent: str = "") -> Path:
        x = np.array([[1, 2, 3, 4]], np.float32)
        manifest = VariantManifest(
            model="tiny", variant=variant, golden=Golden(file=GOLDEN_FILE, relative_tolerance=1e-6)
        )
        manifest.lineage.parent = parent

        def fill(folder: Path) -> None:
            save_scaling(folder / "model.onnx", scale)
            write_golden(folder, GoldenSamples({"x": x}, {"y": x * np.float32(scale)}))

        return publish_variant(tmp_path / "repository", manifest, fill)

    return publish_tiny


@pytest.fixture
def server_repository(tmp_path: Path, publish: Callable[..., Path]) -> Path:
    """Return a repository with "tiny": the baseline doubles, "int8" triples, half of the traffic each."""
    publish("baseline", 2.0)
    publish("int8", 3.0, parent="baseline")
    root = tmp_path / "repository"
    (root / "tiny" / "traffic.yaml").write_text("split: {baseline: 50, int8: 50}\n")
    return root


@pytest.fixture
def slow_repository(tmp_path: Path) -> Path:
    """Return a repository with "slow", which multiplies its input x [1, 256] by a matrix n times."""
    rows = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 256])
    times = helper.make_tensor_value_info("n", TensorProto.INT64, [1])
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "w"], ["after"]),
            helper.make_node("Identity", ["go_on"], ["go_on_too"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, [1, 256]),
        ],
        [
            helper.make_tensor_value_info("go_on_too", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, [1, 256]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("Squeeze", ["n"], ["count"]),
            helper.make_node("Loop", ["count", "", "x"], ["y"], body=body),
        ],
        "slow",
        [rows, times],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 256])],
        [numpy_helper.from_array(np.eye(256, dtype=np.float32), "w")],
    )
    save(tmp_path / "slow-repository" / "slow" / "1" / "model.onnx", graph)
    return tmp_path / "slow-repository"
