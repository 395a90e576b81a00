"""A runtime that reshapes, around a real session."""

from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from flyweight.server.errors import RunFailed
from flyweight.server.repository.reshaping import Reshape, Reshapes
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.reshaped import ReshapedRuntime
from flyweight.server.runtime.seam import RuntimeState, SessionSettings


def test_arrays_go_in_and_come_out_in_the_callers_shapes(tiny_model: Any, tmp_path: Path) -> None:
    """The model's own shape is [n, 2, 3, 1]; callers send rows of 6 and get rows of [3, 2]."""
    path = tiny_model(tmp_path / "model.onnx", 2.0, ("n", 2, 3, 1))
    inner = InlineFactory(cores=1).load(path, SessionSettings())
    reshapes = Reshapes(
        MappingProxyType({"x": Reshape((6,), (2, 3, 1), 1)}),
        MappingProxyType({"y": Reshape((3, 2), (2, 3, 1), 1)}),
    )
    x = np.arange(12, dtype=np.float32).reshape(2, 6)
    answer = ReshapedRuntime(inner, reshapes).run({"x": x}, ["y"])
    np.testing.assert_array_equal(answer.outputs["y"], 2 * x.reshape(2, 3, 2))


def test_everything_else_is_the_models_own() -> None:
    fake = FakeRuntime()
    runtime = ReshapedRuntime(fake, Reshapes())
    assert (runtime.signature, runtime.memory) == (fake.signature, fake.memory)
    assert runtime.usage() == fake.usage()
    assert runtime.state is RuntimeState.READY
    runtime.close()
    assert runtime.state is RuntimeState.CLOSED
    with pytest.raises(RunFailed):
        runtime.run({"x": np.ones((1, 4), np.float32)})
