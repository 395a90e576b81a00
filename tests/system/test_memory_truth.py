"""The memory that is told of a variant is what a process takes that loads only this variant."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.memory_models import IR_VERSION, NAMES, OPSET, write

pytestmark = [pytest.mark.system, pytest.mark.source]

# Nothing of ours: what is told is held against a measurement that shares no code with it.
# The first session pays for onnxruntime itself, so it is of a network of one operator.
ALONE = """
import ctypes, json, sys
import numpy as np, onnxruntime

def pss():
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/smaps_rollup") as file:
        lines = [line.split() for line in file.readlines()[1:]]
    return next(int(line[1]) * 1024 for line in lines if line[0] == "Pss:")

def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

def run(session, rows):
    node = session.get_inputs()[0]
    session.run(None, {"x": np.zeros([rows, *node.shape[1:]], np.float32)})

empty = session(sys.argv[1])
run(empty, 1)
before = pss()
alone = session(sys.argv[2])
grown = {"loaded": pss() - before}
for rows in map(int, sys.argv[3:]):
    run(alone, rows)
    grown[str(rows)] = pss() - before
print(json.dumps(grown))
"""
MOST_OFF = 0.10
# Sixty pages: a network of 1 MB is not much more than the rounding of the kernel's counts.
ROUNDING_BYTES = 256 << 10


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("memory") / "repository"
    for name in NAMES:
        write(name, root / name / "1" / "model.onnx")
    return root


@pytest.fixture(scope="module")
def alone(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, int]]:
    """Return a function that measures a network in a process of its own, after runs of one row and of two."""
    empty = tmp_path_factory.mktemp("empty") / "empty.onnx"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    opset = helper.make_opsetid("", OPSET)
    onnx.save(helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[opset]), empty)

    def measure(name: str) -> dict[str, int]:
        command = [sys.executable, "-c", ALONE, empty, repository / name / "1" / "model.onnx", "1", "2"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
        grown: dict[str, int] = json.loads(done.stdout)
        return grown

    return measure


def memory(scrape: dict[str, float], name: str, kind: str) -> float | None:
    return scrape.get(f'flyweight_variant_memory_bytes{{kind="{kind}",model="{name}",variant="1"}}')


def agrees(told: float | None, measured: int) -> bool:
    assert told is not None
    return abs(told - measured) <= max(MOST_OFF * measured, ROUNDING_BYTES)


def test_inline_it_is_what_a_process_takes_that_loaded_and_ran_it(
    start_server: Callable[..., Any], repository: Path, alone: Callable[[str], dict[str, int]]
) -> None:
    """Four are loaded side by side, so what the server grew by meanwhile says little of any."""
    server = start_server(repository, "--runtime", "inline")
    scrape = server.await_metric(lambda seen: all(memory(seen, name, "own_pss") for name in NAMES))
    found = {name: (memory(scrape, name, "own_pss"), alone(name)["1"]) for name in NAMES}
    assert {name: pair for name, pair in found.items() if not agrees(*pair)} == {}


def test_in_a_process_it_is_what_it_took_to_load_and_what_came_since(
    start_server: Callable[..., Any], repository: Path, alone: Callable[[str], dict[str, int]]
) -> None:
    """The server ran each with one row and with two, to see that rows do not mind each other."""
    server = start_server(repository, "--runtime", "process")
    scrape = server.scrape()
    loaded, all_of_it = {}, {}
    for name in NAMES:
        measured = alone(name)
        loaded[name] = (memory(scrape, name, "load_pss"), measured["loaded"])
        all_of_it[name] = (memory(scrape, name, "own_pss"), measured["2"])
    assert {name: pair for name, pair in loaded.items() if not agrees(*pair)} == {}
    assert {name: pair for name, pair in all_of_it.items() if not agrees(*pair)} == {}


def test_no_process_is_left_of_what_measured(start_server: Callable[..., Any], repository: Path) -> None:
    """It is stopped while the first of them works, as far as that can be hit."""
    server = start_server(repository, "--runtime", "inline")
    children = Path(f"/proc/{server.process.pid}/task")
    pids = {
        int(pid)
        for task in children.iterdir()
        for pid in (task / "children").read_text(encoding="ascii").split()
    }
    server.signal()
    assert server.wait() == 0
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
