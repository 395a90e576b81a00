"""Session settings that onnxruntime has as attributes and not as config entries, by Triton's names for them.

They travel among a SessionSettings' config entries, so that a manifest may write them as well.
Source: README of triton-inference-server/onnxruntime_backend, "Model Config Options".
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import onnxruntime

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.session_entries import GRAPH_LEVEL

_FLAGS: Final = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
_LEVELS: Final = {
    "0": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "-1": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "1": onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "2": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
}
_MODES: Final = {
    "0": onnxruntime.ExecutionMode.ORT_SEQUENTIAL,
    "1": onnxruntime.ExecutionMode.ORT_PARALLEL,
}


def apply_word(options: onnxruntime.SessionOptions, key: str, value: str, cores: int, what: str) -> None:
    """Set one of them; more threads than `cores` are never started. `what` opens the sentence of an error.

    Raises:
        LoadFailed: the value is not one that it takes.
    """
    takes, apply = _WORDS[key]
    try:
        apply(options, value.strip().lower(), cores)
    except (KeyError, ValueError) as error:
        raise LoadFailed(f"{what} sets {key!r} to {value!r}, which takes {takes}; correct it.") from error


def _set_mode(options: onnxruntime.SessionOptions, value: str, cores: int) -> None:
    options.execution_mode = _MODES[value]
    if value == "1" and options.inter_op_num_threads == 1:
        # Branches side by side need threads to run on.
        options.inter_op_num_threads = cores


def _set_inter_op(options: onnxruntime.SessionOptions, value: str, cores: int) -> None:
    count = int(value)
    if count < 0:
        raise ValueError(value)
    options.inter_op_num_threads = min(count or cores, cores)


def _set_arena(options: onnxruntime.SessionOptions, value: str, _cores: int) -> None:
    options.enable_cpu_mem_arena = _FLAGS[value]


def _set_pattern(options: onnxruntime.SessionOptions, value: str, _cores: int) -> None:
    options.enable_mem_pattern = _FLAGS[value]


def _set_level(options: onnxruntime.SessionOptions, value: str, _cores: int) -> None:
    options.graph_optimization_level = _LEVELS[value]


_Apply = Callable[[onnxruntime.SessionOptions, str, int], None]
_WORDS: Final[Mapping[str, tuple[str, _Apply]]] = MappingProxyType(
    {
        "execution_mode": ("0 (operators one by one) or 1 (branches side by side)", _set_mode),
        "inter_op_thread_count": ("a number of threads, 0 for one a core", _set_inter_op),
        "enable_mem_arena": ("1 or 0", _set_arena),
        "enable_mem_pattern": ("1 or 0", _set_pattern),
        GRAPH_LEVEL: ("-1 (basic), 0 (all), 1 (extended) or 2 (none)", _set_level),
    }
)
