import mmap

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from flyweight.server.runtime.growth import GrowthMeter
from flyweight.server.runtime.priming import EMPTY_MODEL, prime

SIZE_BYTES = 16 << 20


def test_what_came_since_is_growth() -> None:
    meter = GrowthMeter()
    with mmap.mmap(-1, SIZE_BYTES) as block:
        block.write(b"\x01" * SIZE_BYTES)
        growth = meter.read()
    assert growth.pss_bytes >= SIZE_BYTES // 2
    assert growth.uss_bytes >= SIZE_BYTES // 2
    assert growth.anonymous_bytes <= SIZE_BYTES // 2, "shared pages are no anonymous ones"


def test_growth_is_never_negative() -> None:
    with mmap.mmap(-1, SIZE_BYTES) as block:
        block.write(b"\x01" * SIZE_BYTES)
        meter = GrowthMeter()
    assert meter.read().pss_bytes == 0


def test_the_peak_is_told_by_the_owner_of_the_process_only() -> None:
    assert GrowthMeter().read().peak_bytes is None
    meter = GrowthMeter(owns_process=True)
    with mmap.mmap(-1, SIZE_BYTES) as block:
        block.write(b"\x01" * SIZE_BYTES)
    peak = meter.read().peak_bytes
    if peak is None:
        pytest.skip("the kernel does not let this process reset its peak")
    assert peak >= SIZE_BYTES // 2


def test_the_model_that_primes_is_what_it_says() -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    expected = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    assert onnx.load_from_string(EMPTY_MODEL) == expected


def test_priming_a_second_time_builds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prime()
    monkeypatch.delattr(onnxruntime, "InferenceSession")
    prime()
