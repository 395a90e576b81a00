"""A search whose process is killed goes on where it was, and comes to the same as one that was not."""

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytest.importorskip("optuna")

from flyweight.compressor.caching import Cache
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.bench import BenchSettings
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Form
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.choices import default_space
from flyweight.compressor.search.search import SearchData, SearchSettings, search
from flyweight.compressor.search.study import StudyPlace

pytestmark = pytest.mark.system

TRIALS = 18

# A search of a made-up space, whose figures are a function of the genes; it says when it begins a trial, and
# stays in the one it is told to, until it is killed.
SEARCH = """
import json, os, sys
from pathlib import Path
from flyweight.compressor.search.sampler_settings import SamplerSettings
from flyweight.compressor.search.space import Parameter
from flyweight.compressor.search.study import Score, Study, StudyPlace

folder, url, stay, trials = Path(sys.argv[1]), sys.argv[2] or None, int(sys.argv[3]), int(sys.argv[4])
begun = 0

def score(genes):
    global begun
    print("trial", begun, flush=True)
    if begun == stay:
        sys.stdin.read()
    begun += 1
    ratio, layers, kind = genes["ratio"], genes["layers"], genes["kind"]
    loss = (ratio / 8) ** 2 / (1 + kind) - 0.01 * layers
    values = (1 - ratio / 8 + 0.05 * layers, 1 - 0.2 * kind, loss)
    return Score(values, {"loss": loss - 0.2}, {"pid": os.getpid()})

parameters = (Parameter("kind", 3, False), Parameter("ratio", 8, True), Parameter("layers", 6, True))
place = StudyPlace(folder, url, heartbeat_seconds=1)
study = Study(place, {"model": "a"}, parameters, SamplerSettings("nsga2", 1, 6), ({"kind": 0}, {"kind": 1}))
study.run(score, trials, lambda: False)
print("done", flush=True)
found = [[dict(t.genes), t.score.values, t.score.told["pid"]] for t in study.finished()]
print(json.dumps(found), flush=True)
study.close()
"""


def start(folder: Path, url: str = "", stay: int = -1, trials: int = TRIALS) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SEARCH, str(folder), url, str(stay), str(trials)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def await_line(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdout is not None
    for said in process.stdout:
        if said.strip() == line:
            return
    raise AssertionError(f"The process ended before it said {line!r}.")


def result(process: subprocess.Popen[str]) -> list[tuple[dict[str, int], list[float]]]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return [(genes, values) for genes, values, _ in json.loads(out.strip().splitlines()[-1])]


def front(trials: Sequence[tuple[dict[str, int], list[float]]]) -> list[list[float]]:
    values = [found for _, found in trials]
    return sorted(
        mine
        for mine in values
        if not any(
            theirs != mine and all(a <= b for a, b in zip(theirs, mine, strict=True)) for theirs in values
        )
    )


@pytest.mark.parametrize("killed_at", [1, 7, 13])
def test_a_killed_search_comes_to_the_same(tmp_path: Path, killed_at: int) -> None:
    whole = result(start(tmp_path / "whole"))
    process = start(tmp_path / "parts", stay=killed_at)
    await_line(process, f"trial {killed_at}")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    resumed = result(start(tmp_path / "parts"))
    assert resumed == whole
    assert len(whole) == TRIALS
    assert front(resumed) == front(whole)


def write_network(path: Path) -> None:
    """A network of two products."""
    random = np.random.default_rng(0)
    weights = [random.standard_normal(shape).astype(np.float32) for shape in ((64, 256), (256, 10))]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w0"], ["h"], name="first"),
            helper.make_node("Relu", ["h"], ["r"], name="relu"),
            helper.make_node("MatMul", ["r", "w1"], ["scores"], name="second"),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)],
    )
    onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def test_when_a_worker_is_killed_the_others_go_on(tmp_path: Path) -> None:
    write_network(tmp_path / "net.onnx")
    rows = np.random.default_rng(1).standard_normal((96, 64)).astype(np.float32)
    data, killed = DataSet({"x": rows}), list[int]()

    def kill_one(what: str, done: int, total: int) -> None:
        workers = multiprocessing.active_children()
        if what == "trials" and done >= 1 and workers and not killed:
            killed.append(workers[0].pid or 0)
            workers[0].kill()

    (tmp_path / "work").mkdir()
    context = Context(workspace=tmp_path / "work", calibration=data.first(32), progress=kill_one)
    settings = SearchSettings(
        trials=14,
        workers=2,
        study=StudyPlace(tmp_path / "study", heartbeat_seconds=1),
        cache=Cache(tmp_path / "cache"),
        bench=BenchSettings(seconds_per_point=0.02),
        keep=1,
    )
    space = default_space(Form.ONNX, trains=False)
    outcome = search(
        Model(path=tmp_path / "net.onnx"),
        Budget.parse("size<=60%, agreement>=50%"),
        SearchData.of(data),
        context,
        settings,
        space,
    )
    assert killed
    assert outcome.pareto
    assert not multiprocessing.active_children()
    with sqlite3.connect(tmp_path / "study" / "study.db") as study:
        states = dict(study.execute("SELECT state, COUNT(*) FROM trials GROUP BY state"))
    study.close()
    assert states["COMPLETE"] >= 14
    assert "RUNNING" not in states
