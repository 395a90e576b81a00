"""The session settings that Triton's parameters name."""

from typing import Any

import onnxruntime
import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.option_words import apply_word
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session_entries import OPTION_WORDS, is_allowed
from flyweight.server.runtime.session_options import make_options


def options(**entries: str) -> Any:
    return make_options(SessionSettings(1, entries), cores=2, what="model.onnx")


def test_words_set_the_attributes_they_name() -> None:
    made = options(enable_mem_arena="0", enable_mem_pattern="false", graph_level="2")
    assert not made.enable_cpu_mem_arena
    assert not made.enable_mem_pattern
    assert made.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    made = options(enable_mem_arena="1", graph_level="0")
    assert made.enable_cpu_mem_arena
    assert made.graph_optimization_level == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL


@pytest.mark.parametrize(
    ("entries", "mode", "threads"),
    [
        ({}, onnxruntime.ExecutionMode.ORT_SEQUENTIAL, 1),
        ({"execution_mode": "1"}, onnxruntime.ExecutionMode.ORT_PARALLEL, 2),
        ({"execution_mode": "1", "inter_op_thread_count": "1"}, onnxruntime.ExecutionMode.ORT_PARALLEL, 1),
        ({"inter_op_thread_count": "64"}, onnxruntime.ExecutionMode.ORT_SEQUENTIAL, 2),
        ({"inter_op_thread_count": "0"}, onnxruntime.ExecutionMode.ORT_SEQUENTIAL, 2),
    ],
)
def test_branches_side_by_side_get_threads_up_to_the_cores(
    entries: dict[str, str], mode: Any, threads: int
) -> None:
    made = options(**entries)
    assert (made.execution_mode, made.inter_op_num_threads) == (mode, threads)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("execution_mode", "2"),
        ("inter_op_thread_count", "-1"),
        ("inter_op_thread_count", "few"),
        ("enable_mem_arena", "perhaps"),
        ("enable_mem_pattern", ""),
        ("graph_level", "3"),
    ],
)
def test_a_value_that_is_none_is_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(LoadFailed, match=rf"^model\.onnx sets '{key}' to '{value}', which takes "):
        options(**{key: value})


def test_words_are_allowed_and_others_are_not() -> None:
    assert is_allowed("enable_mem_arena")
    assert is_allowed("session.disable_prepacking")
    assert not is_allowed("session.load_model_format")


@pytest.mark.parametrize("key", sorted(OPTION_WORDS))
def test_every_word_that_is_allowed_is_known(key: str) -> None:
    with pytest.raises(LoadFailed, match="which takes"):
        apply_word(onnxruntime.SessionOptions(), key, "?", 1, "model.onnx")
