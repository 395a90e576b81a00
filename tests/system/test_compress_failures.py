"""`flyweight compress` when the world fails it: full disks, killed processes, signals at any moment."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

pytestmark = pytest.mark.system

PATIENCE_SECONDS = 90
COMMAND = (sys.executable, "-m", "flyweight.client.cli.main", "compress")
QUICK = ("--examine", "no", "--seconds-per-point", "0.05")
# Whether a variant is as good is not what is tested here.
SEARCH = (*QUICK, "--json", "--budget", "size<=60%, accuracy>=-50pt", "--workers", "2")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with a network of two products, labelled data for it, and room for temporary files."""
    random = np.random.default_rng(0)
    first = random.standard_normal((256, 512)).astype(np.float32) / 16
    last = random.standard_normal((512, 10)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["scores"]),
    ]
    save(tmp_path / "net.onnx", nodes, {"w1": first, "w2": last})
    x = random.standard_normal((200, 256)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, label=(np.maximum(x @ first, 0) @ last).argmax(axis=1))
    (tmp_path / "tmp").mkdir()
    return tmp_path


def save(path: Path, nodes: list[onnx.NodeProto], constants: Mapping[str, np.ndarray]) -> None:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def start(folder: Path, *more: str, **settings: object) -> "subprocess.Popen[str]":
    """Start the command in a session of its own, so that a signal to its group is Ctrl-C at a terminal."""
    arguments = ("net.onnx", "--data", "data.npz", "--name", "net", "--out", "repository", *more)
    environment = {
        **os.environ,
        "TMPDIR": str(folder / "tmp"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        **settings.pop("env", {}),
    }
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **settings,
    )


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    """Return exit code and output; all who hold the pipes, children too, have ended by then."""
    try:
        printed, told = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert "Traceback" not in told, told
    return process.returncode, printed, told


def refused(process: "subprocess.Popen[str]") -> str:
    """Return the one sentence that a refused command prints."""
    code, printed, told = finish(process)
    assert (code, printed) == (2, ""), told
    assert told.count("\n") == 1, told
    return told.removeprefix("flyweight: error: ").rstrip("\n")


def await_truth(truth: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not truth():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def children(parent: int, word: str) -> list[int]:
    """Return the processes below `parent` whose command line holds `word`."""
    tasks = Path(f"/proc/{parent}/task").glob("*/children")
    born = [child for task in tasks for child in task.read_text().split()]
    return [int(child) for child in born if word in Path(f"/proc/{child}/cmdline").read_text()]


def busy_workers(parent: int) -> list[int]:
    """Return the workers of a search that were handed their job and have begun with it."""
    maps = {worker: Path(f"/proc/{worker}/maps").read_text() for worker in children(parent, "spawn_main")}
    return [worker for worker, text in maps.items() if "onnxruntime" in text]


def recorded(folder: Path) -> list[str]:
    record = folder / "repository" / "net" / ".flyweight" / "report.json"
    if not record.exists():
        return []
    return [variant["name"] for variant in json.loads(record.read_text())["variants"]]


def left_behind(folder: Path) -> list[Path]:
    hidden = [path for path in folder.glob("repository/net/.*") if path.name != ".flyweight"]
    return [*folder.glob("tmp/flyweight-compress-*"), *hidden]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that mounts a file system of so many KiB, where this user may."""
    mounted: list[Path] = []
    mount = shutil.which("mount")

    def make(kilobytes: int) -> Path:
        place = tmp_path / f"disk{len(mounted)}"
        place.mkdir()
        command = [str(mount), "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)]
        if os.geteuid() != 0 or mount is None or subprocess.run(command, check=False).returncode != 0:
            pytest.skip("mounting needs root")
        mounted.append(place)
        return place

    yield make
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


def test_a_full_repository_is_one_sentence_and_stays_empty(files: Path, small_disk) -> None:
    disk = small_disk(64)
    sentence = refused(start(files, *QUICK, "--out", str(disk / "repository")))
    assert "baseline cannot be written (No space left on device" in sentence
    assert list(disk.iterdir()) == []


def test_a_repository_that_fills_up_keeps_what_was_published(files: Path, small_disk) -> None:
    disk = small_disk(700)
    sentence = refused(start(files, *QUICK, "--max-drop", "1", "--out", str(disk / "repository")))
    assert "No space left on device" in sentence
    folder = disk / "repository" / "net"
    assert {path.name for path in folder.iterdir()} >= {"baseline", ".flyweight"}
    assert not list(folder.glob(".*.publishing"))
    for path in folder.iterdir():
        assert path.name == ".flyweight" or (path / "manifest.json").stat().st_size > 0


def test_a_full_temporary_folder_is_one_sentence(files: Path, small_disk) -> None:
    disk = small_disk(800)
    sentence = refused(start(files, *QUICK, env={"TMPDIR": str(disk)}))
    assert sentence.startswith("The work cannot go on (No space left on device")
    assert f"make room and check the rights in {disk}" in sentence
    assert not list(disk.glob("flyweight-*"))
    assert recorded(files)[:1] in ([], ["baseline"])


def test_a_full_cache_costs_the_cache_alone(files: Path, small_disk) -> None:
    disk = small_disk(8)
    code, printed, told = finish(start(files, *QUICK, "--json", "--work-dir", str(disk / "work")))
    assert code == 0, told
    assert len(json.loads(printed)["variants"]) > 1
    assert not [path for path in disk.rglob("*") if path.is_file()]


def test_a_limit_on_the_size_of_files_is_one_sentence(files: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    assert "cannot be written (File too large" in refused(start(files, *QUICK, preexec_fn=limit))
    assert not (files / "repository").exists()
    assert left_behind(files) == []


def test_a_killed_measuring_process_is_one_sentence(files: Path) -> None:
    process = start(files, *QUICK)
    probes: list[int] = []
    await_truth(lambda: probes or probes.extend(children(process.pid, "memory_probe")), process)
    os.kill(probes[0], signal.SIGKILL)
    assert "memory" in refused(process)
    assert not (files / "repository").exists()
    assert left_behind(files) == []


def test_a_killed_worker_is_replaced(files: Path) -> None:
    pytest.importorskip("optuna")
    process = start(files, *SEARCH, "--trials", "4")
    await_truth(lambda: busy_workers(process.pid), process)
    os.kill(busy_workers(process.pid)[0], signal.SIGKILL)
    code, printed, told = finish(process)
    assert code == 0, told
    document = json.loads(printed)
    assert len(document["variants"]) > 1
    assert len(document["search"]["trials"]) >= 1


def test_a_killed_run_is_made_up_for_by_the_next(files: Path) -> None:
    process = start(files, *QUICK)
    await_truth(lambda: "int8" in recorded(files), process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert list(files.glob("tmp/flyweight-compress-*"))
    kept = next((files / "cache").glob("flyweight/cache/*/model.onnx"))
    made = kept.stat().st_mtime_ns
    code, printed, told = finish(start(files, *QUICK, "--json"))
    assert code == 0, told
    assert [variant["name"] for variant in json.loads(printed)["variants"]][:2] == ["baseline", "int8"]
    assert kept.stat().st_mtime_ns == made, "what the first run made was made again"
    assert left_behind(files) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_what_was_found(files: Path, number: signal.Signals) -> None:
    process = start(files, "--json", "--seconds-per-point", "30")
    await_truth(lambda: recorded(files), process)
    os.killpg(process.pid, number)
    code, printed, told = finish(process)
    assert code == 128 + number
    assert told.startswith("Stopped; what was found until then is published and kept")
    assert recorded(files) == ["baseline"]
    if number == signal.SIGINT:
        assert [variant["name"] for variant in json.loads(printed)["variants"]] == ["baseline"]
    assert left_behind(files) == []


def test_a_stopped_search_goes_on_with_its_trials(files: Path) -> None:
    pytest.importorskip("optuna")
    process = start(files, *SEARCH, "--trials", "4")
    await_truth(lambda: busy_workers(process.pid), process)
    os.killpg(process.pid, signal.SIGINT)
    code, printed, told = finish(process)
    assert (code, printed) == (130, "")
    assert told.count("\n") == 1, told
    code, printed, told = finish(start(files, *SEARCH, "--trials", "4"))
    assert code == 0, told
    assert left_behind(files) == []


def test_a_run_of_the_model_that_takes_minutes_can_be_left(files: Path) -> None:
    """Python is told of a signal only when the run returns; nobody waits for that."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["before", "w"], ["after"]),
            helper.make_node("Identity", ["on"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        helper.make_node("Loop", ["times", "", "x"], ["h"], body=body),
        helper.make_node("MatMul", ["h", "w2"], ["scores"]),
    ]
    constants = {
        "times": np.array(10**9, np.int64),
        "w": np.eye(256, dtype=np.float32),
        "w2": np.ones((256, 10), np.float32),
    }
    save(files / "net.onnx", nodes, constants)
    process = start(files, *QUICK)
    await_truth(lambda: list(files.glob("tmp/flyweight-compress-*")), process)
    time.sleep(2)  # nothing tells from outside that the run has begun; it would take hours
    os.killpg(process.pid, signal.SIGINT)
    code, printed, told = finish(process)
    assert (code, printed) == (130, "")
    assert told.startswith("Stopped before anything was published")
    assert left_behind(files) == []
    assert not (files / "repository").exists()
