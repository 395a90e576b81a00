"""`flyweight predict`, against a server on loopback."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.client import TensorInfo
from flyweight.client.testing import FakeModel, FakeServer, Fault


def test_the_text_tells_who_answered_how_well_and_the_first_rows(
    run: Any, digits: FakeServer, data: Path
) -> None:
    done = run("predict", "digits", "--data", data, "--url", digits.address, "--show", 2)
    assert (done.code, done.err) == (0, "")
    lines = [line.split() for line in done.out.splitlines()]
    assert lines[0][:6] == ["digits", "at", f"{digits.address}:", "12", "rows", "in"]
    assert lines[2] == ["variant", "role", "rows", "requests", "p50", "ms", "p99", "ms", "accuracy"]
    assert lines[3][:4] == ["baseline", "baseline", "12", "12"]
    assert lines[3][-1] == "100.00%"
    assert lines[5:8] == [
        ["row", "variant", "class", "score", "label"],
        ["0", "baseline", "0", "1.25", "0"],
        ["1", "baseline", "1", "1.25", "1"],
    ]
    assert done.out.splitlines()[-1].startswith("10 more rows")


def test_json_is_one_document_and_nothing_else(run: Any, digits: FakeServer, data: Path) -> None:
    done = run(
        "predict",
        "digits",
        "--data",
        data,
        "--url",
        digits.address,
        "--json",
        "--variant",
        "int8",
        "--batch-rows",
        5,
    )
    assert done.err == ""
    document = json.loads(done.out)
    assert (document["rows"], document["requests"]) == (12, 3)
    assert document["quality"] == {"metric": "accuracy", "value": pytest.approx(2 / 3)}
    (variant,) = document["variants"]
    assert (variant["variant"], variant["role"], variant["rows"]) == ("int8", "pinned", 12)
    assert 0 < variant["latency_ms"]["p50"] <= variant["latency_ms"]["p99"]
    assert document["outputs"] == {"logits": {"dtype": "float32", "shape": [12, 3]}}
    assert document["predictions"][1] == {"variant": "int8", "class": 1, "score": 1.25}


def test_out_holds_every_output_and_who_answered(
    run: Any, digits: FakeServer, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers"
    assert run("predict", "digits", "--data", data, "--url", digits.address, "--out", out).code == 0
    with np.load(out, allow_pickle=False) as written:
        assert written["logits"].shape == (12, 3)
        assert set(written["flyweight_variant"].tolist()) == {"baseline"}


def test_outputs_of_any_name_and_of_bytes_can_be_written(
    run: Any, digits: FakeServer, tmp_path: Path
) -> None:
    words = np.array([b"a", b"bc"], dtype=object)
    digits.models["odd"] = FakeModel(
        {"1": lambda inputs: {"file": inputs["s"], "text": words[: len(inputs["s"])]}},
        inputs=(TensorInfo("s", "FP32", (-1,)),),
    )
    data, out = tmp_path / "d.npz", tmp_path / "o.npz"
    np.savez(data, s=np.arange(2, dtype=np.float32))
    done = run("predict", "odd", "--data", data, "--url", digits.address, "--out", out, "--batch-rows", 2)
    assert done.code == 0
    with np.load(out, allow_pickle=False) as written:
        assert written["file"].tolist() == [0, 1]
        assert written["text"].tolist() == [b"a", b"bc"]


def test_a_model_without_a_batch_axis_is_asked_row_by_row(
    run: Any, digits: FakeServer, tmp_path: Path
) -> None:
    digits.models["scale"] = FakeModel(
        {"1": lambda inputs: {"z": inputs["s"] * np.float32(2)}}, inputs=(TensorInfo("s", "FP32", ()),)
    )
    data = tmp_path / "d.npz"
    np.savez(data, s=np.arange(3, dtype=np.float32), label=np.array([0.0, 2.0, 5.0]))
    document = json.loads(run("predict", "scale", "--data", data, "--url", digits.address, "--json").out)
    assert document["outputs"]["z"]["shape"] == [3]
    assert document["quality"] == {"metric": "mean_absolute_error", "value": pytest.approx(1 / 3)}
    assert document["predictions"] == [{"variant": "1"}] * 3


def test_the_key_goes_with_every_request(run: Any, digits: FakeServer, data: Path) -> None:
    run("predict", "digits", "--data", data, "--url", digits.address, "--key", "u7", "--batch-rows", 6)
    assert [request.parameters["flyweight_key"].string_param for request in digits.requests] == ["u7", "u7"]


def test_variants_that_answer_different_shapes_are_told(run: Any, digits: FakeServer, tmp_path: Path) -> None:
    digits.models["odd"] = FakeModel(
        {"1": lambda inputs: {"y": np.zeros((1, int(inputs["x"][0]) + 1))}},
        inputs=(TensorInfo("x", "FP32", (-1,)),),
    )
    data = tmp_path / "d.npz"
    np.savez(data, x=np.arange(2, dtype=np.float32))
    done = run("predict", "odd", "--data", data, "--url", digits.address)
    assert done.code == 2
    assert "different shapes" in done.err


def test_the_variable_gives_the_address(
    run: Any, digits: FakeServer, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLYWEIGHT_URL", digits.address)
    monkeypatch.setenv("FLYWEIGHT_TOKEN", "t")
    assert run("predict", "digits", "--data", data).code == 0
    assert digits.received[0].metadata["authorization"] == "Bearer t"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], "there is no model 'nobody'"),
        (["digits", "--variant", "fp4"], "has no variant 'fp4'"),
        (["digits", "--out", "/nowhere/o.npz"], "/nowhere/o.npz cannot be written"),
        (["digits", "--ca", "/nowhere/ca.pem"], "/nowhere/ca.pem cannot be read"),
        (["digits", "--batch-rows", "0"], "--batch-rows"),
        (["digits", "--timeout", "0"], "--timeout"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    run: Any, digits: FakeServer, data: Path, arguments: list[str], sentence: str
) -> None:
    done = run("predict", *arguments, "--data", data, "--url", digits.address)
    assert (done.code, done.out) == (2, "")
    assert sentence in done.err.splitlines()[-1]
    assert "Traceback" not in done.err


def test_a_failure_of_the_server_is_told(run: Any, digits: FakeServer, data: Path) -> None:
    digits.fail(Fault("INTERNAL", "run failed", method="ModelInfer"))
    done = run("predict", "digits", "--data", data, "--url", digits.address)
    assert (done.code, done.out) == (2, "")
    assert "run failed (INTERNAL)" in done.err


def test_nothing_is_sent_when_the_answers_could_not_be_kept(run: Any, digits: FakeServer, data: Path) -> None:
    run("predict", "digits", "--data", data, "--url", digits.address, "--out", "/nowhere/o.npz")
    assert not digits.requests


def test_a_model_and_a_file_that_are_swapped_are_told_in_order(
    run: Any, digits: FakeServer, data: Path
) -> None:
    done = run("predict", data, "--data", "digits", "--url", digits.address)
    assert done.code == 2
    assert done.err.endswith(f"flyweight predict digits --data {data}\n")
