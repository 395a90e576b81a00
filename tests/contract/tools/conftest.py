"""Stock load tools, where they are installed, and a server for them to ask."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import tritonclient.grpc as triton
from onnx import parser, save

from flyweight.server.app import Server, Started
from flyweight.server.settings import ServerSettings, Transport

# Far more than any of them needs, and less than a test may take.
PATIENCE_SECONDS: Final = 120
HEADER: Final = '<ir_version: 9, opset_import: ["" : 18]>'
GRAPHS: Final = {
    "double": "double (float[n,4] x) => (float[n,4] y) { y = Add(x, x) }",
    "square": "square (float[n,4] x) => (float[n,4] y) { y = Mul(x, x) }",
    "cached": "cached (float[n,4] x) => (float[n,4] y) { y = Neg(x) }",
    "fixed": "fixed (int32[2,3] x) => (int32[3,2] y) { y = Transpose<perm=[1,0]>(x) }",
    "strings": "strings (string[n,2] x) => (string[n,2] y) { y = Identity(x) }",
    "sums": """
        sums (float[n,4] a, float[n,4] b) => (float[n,4] c, float[n,4] d)
        { c = Add(a, b) d = Sub(a, b) }""",
    "counter": """
        counter (int32[n,1] x, int32[n,1] before, int32[n,1] start) => (int32[n,1] y, int32[n,1] after)
        <int32 one = {1}>
        { keep = Sub(one, start) kept = Mul(before, keep) y = Add(x, kept) after = Identity(y) }""",
}
CONFIGS: Final = {
    "cached": "max_batch_size: 8 response_cache { enable: true }",
    "counter": """
        max_batch_size: 8
        input { name: "x" data_type: TYPE_INT32 dims: [1] }
        output { name: "y" data_type: TYPE_INT32 dims: [1] }
        sequence_batching {
          control_input {
            name: "start" control { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }
          }
          state {
            input_name: "before" output_name: "after" data_type: TYPE_INT32 dims: [1]
            initial_state { name: "zero" data_type: TYPE_INT32 dims: [1] zero_data: true }
          }
        }""",
    "chain": """
        platform: "ensemble" max_batch_size: 8
        input { name: "x" data_type: TYPE_FP32 dims: [4] }
        output { name: "y" data_type: TYPE_FP32 dims: [4] }
        ensemble_scheduling {
          step { model_name: "double" model_version: -1
                 input_map { key: "x" value: "x" } output_map { key: "y" value: "between" } }
          step { model_name: "square" model_version: -1
                 input_map { key: "x" value: "between" } output_map { key: "y" value: "y" } }
        }""",
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that was found."""

    path: str

    def run(self, *arguments: str | Path) -> str:
        """Run it to its good end, and return what it printed."""
        command = [self.path, *map(str, arguments)]
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, (command, done.returncode, done.stdout)
        return done.stdout


def find(name: str, variable: str) -> Tool:
    """Return the program that the environment names, or that is on the PATH; else skip the test."""
    path = shutil.which(os.environ.get(variable) or name)
    if path is None:
        pytest.skip(f"{name} is not there: install it, or name the program in {variable}")
    return Tool(path)


@pytest.fixture(scope="session")
def perf_analyzer() -> Tool:
    return find("perf_analyzer", "FLYWEIGHT_PERF_ANALYZER")


@pytest.fixture(scope="session")
def k6() -> Tool:
    return find("k6", "FLYWEIGHT_K6")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write one model of each kind that the tools treat in a way of its own."""
    root = tmp_path_factory.mktemp("repository")
    for name in {*GRAPHS, *CONFIGS}:
        (root / name / "1").mkdir(parents=True)
    for name, graph in GRAPHS.items():
        save(parser.parse_model(f"{HEADER} {graph}"), root / name / "1" / "model.onnx")
    for name, config in CONFIGS.items():
        (root / name / "config.pbtxt").write_text(config)
    return root


@pytest.fixture(scope="session")
def serve(repository: Path, transport: str) -> Iterator[Callable[..., Started]]:
    """Return a function that serves the repository with settings."""
    servers: list[Server] = []

    def start(**settings: Any) -> Started:
        settings = {"port": 0, "metrics_port": 0, "transport": Transport(transport), **settings}
        server = Server(ServerSettings(repository, **settings))
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(serve: Callable[..., Started], tmp_path_factory: pytest.TempPathFactory) -> Started:
    """Serve with everything on that the tools can use."""
    return serve(shared_memory=True, trace_folder=tmp_path_factory.mktemp("traces"))


@pytest.fixture
def regions(server: Started) -> Callable[[], Sequence[str]]:
    """Return a function that names the regions of shared memory that are registered."""

    def names() -> Sequence[str]:
        with triton.InferenceServerClient(server.address) as client:
            status: Any = client.get_system_shared_memory_status()
            return sorted(status.regions)

    return names
