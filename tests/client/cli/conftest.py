"""Running the command in this process, and a server for it to talk to."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flyweight.client import TensorInfo
from flyweight.client.cli.main import main
from flyweight.client.testing import FakeModel, FakeServer, serve_fake


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: object) -> Done:
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Done(code, captured.out, captured.err)

    return run_command


# Row r of the data has its largest score at class r % 3; the candidate is wrong on class 2.
PIXELS = np.eye(3, dtype=np.float32)[np.arange(12) % 3] + np.float32(0.25)
LABELS = np.arange(12) % 3
WRONG = np.diag(np.array([1, 1, 0], dtype=np.float32))


@pytest.fixture
def digits() -> Iterator[FakeServer]:
    model = FakeModel(
        variants={
            "baseline": lambda inputs: {"logits": inputs["pixels"]},
            "int8": lambda inputs: {"logits": inputs["pixels"] @ WRONG},
        },
        inputs=(TensorInfo("pixels", "FP32", (-1, 3)),),
        outputs=(TensorInfo("logits", "FP32", (-1, 3)),),
    )
    with serve_fake({"digits": model}) as server:
        yield server


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data.npz"
    np.savez(path, pixels=PIXELS, label=LABELS)
    return path
