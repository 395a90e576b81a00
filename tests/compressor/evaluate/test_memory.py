"""Memory of a fresh process; starts three, the only ones in the unit tier."""

import subprocess
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save_model

from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate import memory
from flyweight.compressor.evaluate.memory import MemoryMeter
from flyweight.compressor.evaluate.memory_probe import read_rollup
from flyweight.compressor.sessions import SessionSettings

ROLLUP = """55-7f ---p 00000000 00:00 0 [rollup]
Rss: 9000 kB
Pss:    5000 kB
Private_Clean: 100 kB
Private_Dirty: 200 kB
"""


def test_kibibytes_of_the_kernel_become_bytes() -> None:
    assert read_rollup(ROLLUP) == {"pss": 5000 * 1024, "uss": 300 * 1024}


def test_a_model_adds_its_weights_to_a_process(models, tmp_path) -> None:
    """4000 x 2000 floats are 32 MB, which a process that runs an empty graph does not hold."""
    weight = models.weight("w", 2000, 4000)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2000])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4000])],
        [weight],
    )
    path = models.write(graph, "large")
    meter = MemoryMeter(tmp_path, SessionSettings())
    grown = meter.growth_bytes(path, {"x": np.zeros((1, 2000), dtype=np.float32)})
    assert 31_000_000 < grown < 40_000_000
    save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 999)]), path)
    with pytest.raises(ModelError, match=r"The memory of .*large\.onnx could not be measured"):
        meter.growth_bytes(path, {})


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        (subprocess.CalledProcessError(-9, "probe"), "was killed, most likely for want of memory; free some"),
        (subprocess.CalledProcessError(-11, "probe"), r"died of Segmentation fault \(signal 11\)"),
        (
            subprocess.CalledProcessError(1, "probe", stderr="Traceback\nMemoryError: bad."),
            r"ended with exit code 1 \(MemoryError: bad\)",
        ),
        (subprocess.CalledProcessError(3, "probe", stderr=""), "ended with exit code 3"),
        (subprocess.TimeoutExpired("probe", 600), "took longer than 600 seconds"),
        (
            OSError(11, "Resource temporarily unavailable"),
            r"no process could be started \(Resource temporarily unavailable\)",
        ),
    ],
)
def test_the_death_of_the_process_is_told(
    ending: Exception, said: str, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_given: object, **_options: object) -> None:
        raise ending

    monkeypatch.setattr(memory.subprocess, "run", die)
    meter = MemoryMeter(tmp_path, SessionSettings())
    with pytest.raises(ModelError, match=rf"The memory of m\.onnx could not be measured: .*{said}\.$"):
        meter.growth_bytes(Path("m.onnx"), {})
