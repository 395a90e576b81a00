"""What config.pbtxt says of the session: `parameters` and `optimization`, as session settings. Pure.

Source: README of triton-inference-server/onnxruntime_backend, "Other Optimization Options with ONNX Runtime".
"""

from dataclasses import replace
from typing import Final

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelOptimizationPolicy
from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session_entries import GRAPH_LEVEL, is_allowed

_INTRA_OP: Final = "intra_op_thread_count"
_LEVELS: Final = frozenset({-1, 0, 1, 2})

# Triton's onnxruntime backend reads these for its GPU providers.
_GPU_PARAMETERS: Final = frozenset(
    {
        "arena_extend_strategy",
        "cudnn_conv_algo_search",
        "cudnn_conv_use_max_workspace",
        "do_copy_in_default_stream",
        "gpu_mem_limit",
        "use_ep_level_unified_stream",
    }
)
# Names that onnxruntime would take as settings of a session or a run: one that a repository may not set is
# refused. Any other name is the user's own word, which Triton's backend does not read either; it is kept.
_SESSION_PREFIXES: Final = (
    "ep.",
    "enable_",
    "execution_",
    "inter_op",
    "intra_op",
    "memory.",
    "mlas.",
    "optimization.",
    "session.",
)


def with_parameters(settings: SessionSettings, config: ModelConfig, model: str) -> SessionSettings:
    """Return `settings` with what the configuration says in their place.

    Raises:
        LoadFailed: a value cannot be read, or something is asked for that is not done; it is named.
    """
    what = f"The config.pbtxt of {model}"
    threads, entries = settings.intra_op_threads, dict(settings.config_entries)
    for name in sorted(config.parameters):
        value = config.parameters[name].string_value
        described = f"{what} sets the parameter {name!r} to {value!r}"
        if name == _INTRA_OP:
            threads = _threads(value, described)
        elif is_allowed(name):
            entries[name] = value
        elif name in _GPU_PARAMETERS:
            raise LoadFailed(f"{described}, which is for GPUs, and models run on CPUs here; remove it.")
        elif name.startswith(_SESSION_PREFIXES):
            raise LoadFailed(
                f"{described}, which is no session setting that a repository may make; remove it."
            )
    _require_cpu(config.optimization, what)
    if config.optimization.HasField("graph"):
        entries[GRAPH_LEVEL] = str(_level(config.optimization, what))
    return replace(settings, intra_op_threads=threads, config_entries=entries)


def unread_parameters(config: ModelConfig) -> tuple[str, ...]:
    """Return the parameters that have no effect here, nor with Triton's onnxruntime backend."""
    return tuple(name for name in sorted(config.parameters) if name != _INTRA_OP and not is_allowed(name))


def _require_cpu(optimization: ModelOptimizationPolicy, what: str) -> None:
    accelerators = optimization.execution_accelerators
    for asked in (*accelerators.gpu_execution_accelerator, *accelerators.cpu_execution_accelerator):
        raise LoadFailed(
            f"{what} asks for the execution accelerator {asked.name!r}, and models run on onnxruntime's own "
            "CPU kernels here; remove it."
        )
    if optimization.cuda.graphs or optimization.cuda.graph_spec:
        raise LoadFailed(f"{what} asks for CUDA graphs, and models run on CPUs here; remove them.")


def _level(optimization: ModelOptimizationPolicy, what: str) -> int:
    level = optimization.graph.level
    if level not in _LEVELS:
        raise LoadFailed(
            f"{what} sets the optimization level {level}; the levels are -1 (basic), 0 (all), 1 (extended) "
            "and 2 (none)."
        )
    return level


def _threads(value: str, described: str) -> int:
    word = value.strip()
    if not (word.isascii() and word.isdigit() and len(word) <= 4):
        raise LoadFailed(f"{described}; write a number of threads, 0 for the server's choice.")
    return int(word)
