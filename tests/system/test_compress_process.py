"""`flyweight compress` as a user runs it: its own process, a real repository, output for a script."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.protos.variant import read_manifest, verify_digests

pytestmark = pytest.mark.system


def write_files(folder: Path) -> None:
    """A network of one large product, whose weights are what there is to gain, and labelled data for it."""
    random = np.random.default_rng(0)
    weight = random.standard_normal((256, 512)).astype(np.float32)
    last = random.standard_normal((512, 10)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["scores"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 256])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "w1"), numpy_helper.from_array(last, "w2")],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save_model(model, folder / "net.onnx")
    x = random.standard_normal((200, 256)).astype(np.float32)
    label = (np.maximum(x @ weight, 0) @ last).argmax(axis=1)
    np.savez(folder / "data.npz", x=x, label=label)


def flyweight(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flyweight.client.cli.main", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_compress_publishes_and_prints_one_document(tmp_path: Path) -> None:
    write_files(tmp_path)
    ended = flyweight(
        tmp_path, "compress", "net.onnx", "--data", "data.npz", "--out", "repository", "--name", "net",
        "--max-drop", "0.1", "--seconds-per-point", "0.2", "--json",
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert ended.stderr == "Report with pictures: repository/net/.flyweight/report.html\n"
    by_name = {variant["name"]: variant for variant in document["variants"]}
    assert set(by_name) == {"baseline", "int8", "int8-dynamic", "fp16", "cut-int8", "int8-mixed"}
    assert by_name["fp16"]["published"], by_name["fp16"]["reason"]
    for variant in by_name.values():
        folder = tmp_path / "repository" / "net" / variant["name"]
        assert folder.exists() == variant["published"]
        if variant["published"]:
            manifest = read_manifest(folder)
            assert manifest is not None
            verify_digests(folder, manifest)
            assert variant["memory"]["pss_bytes"] >= 0


@pytest.mark.parametrize(
    ("model", "data", "sentence"),
    [
        ("nowhere.onnx", "data.npz", "The model file nowhere.onnx does not exist; check the path."),
        ("net.onnx", "nowhere.npz", "The data file nowhere.npz does not exist"),
        ("data.npz", "data.npz", "data.npz is not an ONNX file"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_two(
    tmp_path: Path, model: str, data: str, sentence: str
) -> None:
    write_files(tmp_path)
    ended = flyweight(tmp_path, "compress", model, "--data", data, "--out", "repository", "--name", "net")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"flyweight: error: {sentence}")
    assert ended.stderr.count("\n") == 1
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_leaves_nothing_half_done(tmp_path: Path, number: signal.Signals, code: int) -> None:
    write_files(tmp_path)
    (tmp_path / "tmp").mkdir()
    command = [
        sys.executable,
        "-m",
        "flyweight.client.cli.main",
        "compress",
        "net.onnx",
        "--data",
        "data.npz",
    ]
    process = subprocess.Popen(
        [*command, "--out", "repository", "--name", "net", "--seconds-per-point", "60"],
        cwd=tmp_path,
        env={**os.environ, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    workspaces = "tmp/flyweight-compress-*"
    while not any(tmp_path.glob(workspaces)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    printed, told = process.communicate(timeout=60)
    assert process.returncode == code, told
    assert printed == ""
    assert told.startswith("Stopped before anything was published")
    assert told.count("\n") == 1
    assert not any(tmp_path.glob(workspaces))
    assert not list(tmp_path.glob("repository/net/.*"))
