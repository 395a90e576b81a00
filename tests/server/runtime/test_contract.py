"""What every runtime does, whoever holds the session."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.server.errors import LoadFailed, RunFailed
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.process.factory import ProcessFactory
from flyweight.server.runtime.seam import (
    Runtime,
    RuntimeFactory,
    RuntimeState,
    SessionSettings,
    Signature,
    TensorSpec,
)

X = np.arange(8, dtype=np.float32).reshape(2, 4)


@pytest.fixture(params=["inline", "process", "fake"])
def factory(request: pytest.FixtureRequest) -> RuntimeFactory:
    makers: dict[str, Callable[[], RuntimeFactory]] = {
        "inline": lambda: InlineFactory(cores=2),
        "process": lambda: ProcessFactory(cores=2),
        "fake": lambda: FakeFactory(lambda _: FakeRuntime(scale=2.0)),
    }
    return makers[request.param]()


@pytest.fixture
def runtime(factory: RuntimeFactory, tiny_model: Any, tmp_path: Path) -> Iterator[Runtime]:
    loaded = factory.load(tiny_model(tmp_path / "model.onnx", scale=2.0), SessionSettings())
    yield loaded
    loaded.close()


def test_it_knows_its_signature(runtime: Runtime) -> None:
    expected = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),))
    assert runtime.signature == expected


def test_it_answers_by_output_name_and_tells_its_times(runtime: Runtime) -> None:
    answer = runtime.run({"x": X})
    np.testing.assert_array_equal(answer.outputs["y"], 2 * X)
    assert answer.queue_seconds >= 0
    assert answer.run_seconds >= 0


def test_it_gives_only_the_outputs_that_are_wanted(runtime: Runtime) -> None:
    assert list(runtime.run({"x": X}, ["y"]).outputs) == ["y"]


def test_it_takes_arrays_that_cannot_be_written(runtime: Runtime) -> None:
    """Decoded tensors are views of the request's bytes."""
    view = np.frombuffer(X.tobytes(), np.float32).reshape(X.shape)
    assert not view.flags.writeable
    np.testing.assert_array_equal(runtime.run({"x": view}).outputs["y"], 2 * X)


def test_it_takes_many_runs_at_once(runtime: Runtime) -> None:
    wrong: list[float] = []

    def run(number: float) -> None:
        for _ in range(20):
            y = runtime.run({"x": np.full((3, 4), number, np.float32)}).outputs["y"]
            if not (y == 2 * number).all():
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(float(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not wrong


def test_it_reports_its_memory(runtime: Runtime) -> None:
    assert runtime.memory.file_bytes > 0
    assert runtime.memory.load_pss_bytes is not None
    assert runtime.memory.load_pss_bytes >= 0


def test_it_refuses_to_run_after_it_was_closed(runtime: Runtime) -> None:
    assert runtime.state is RuntimeState.READY
    runtime.close()
    assert runtime.state is RuntimeState.CLOSED
    with pytest.raises(RunFailed):
        runtime.run({"x": X})


def test_it_tells_what_it_uses_while_it_is_there_and_afterwards(runtime: Runtime) -> None:
    assert runtime.usage().file_bytes == runtime.memory.file_bytes
    runtime.close()
    assert runtime.usage().file_bytes == runtime.memory.file_bytes


def test_a_missing_file_is_named(factory: RuntimeFactory, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"nothing\.onnx"):
        factory.load(tmp_path / "nothing.onnx", SessionSettings())
