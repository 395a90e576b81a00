import mmap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from flyweight.server.runtime import inline
from flyweight.server.runtime.growth import GrowthMeter, Spans
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.priming import EMPTY_MODEL, prime
from flyweight.server.runtime.seam import SessionSettings

SIZE_BYTES = 16 << 20


def test_what_came_since_is_growth() -> None:
    meter = GrowthMeter()
    with mmap.mmap(-1, SIZE_BYTES) as block:
        block.write(b"\x01" * SIZE_BYTES)
        growth = meter.read()
    assert growth.pss_bytes >= SIZE_BYTES // 2
    assert growth.uss_bytes >= SIZE_BYTES // 2
    # Of what grew beside it (threads of other tests leave and take memory) nothing is said.
    shared_bytes = growth.pss_bytes - growth.anonymous_bytes
    assert shared_bytes >= SIZE_BYTES // 2, "shared pages are no anonymous ones"


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


def test_of_loads_one_after_the_other_none_is_shared() -> None:
    spans = Spans()
    with spans.span() as first:
        pass
    with spans.span() as second:
        pass
    assert not first.is_shared
    assert not second.is_shared


def test_of_loads_that_overlap_both_are_shared() -> None:
    spans = Spans()
    with spans.span() as first, spans.span() as second:
        pass
    with spans.span() as third:
        pass
    assert (first.is_shared, second.is_shared, third.is_shared) == (True, True, False)


def test_the_growth_of_loads_side_by_side_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would have the other's memory in it."""
    file = tmp_path / "model.onnx"
    file.write_bytes(EMPTY_MODEL)
    both, opened = threading.Barrier(2), inline.open_session

    def open_beside(*arguments: Any, **more: Any) -> Any:
        both.wait(30)
        return opened(*arguments, **more)

    factory = InlineFactory(cores=1)
    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(inline, "open_session", open_beside)
        loads = [pool.submit(factory.load, file, SessionSettings()) for _ in range(2)]
        side_by_side = [load.result(30) for load in loads]
    alone = factory.load(file, SessionSettings())
    assert [runtime.memory.load_pss_bytes for runtime in side_by_side] == [None, None]
    assert alone.memory.load_pss_bytes is not None
    for runtime in (*side_by_side, alone):
        runtime.close()
