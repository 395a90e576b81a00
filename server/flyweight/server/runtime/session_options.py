"""How the settings of a variant become onnxruntime's session options."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import onnxruntime

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.seam import SessionSettings

# A spinning idle thread takes a core from everybody else, so it is off unless the manifest says otherwise.
_DEFAULTS: Final[Mapping[str, str]] = MappingProxyType({"session.intra_op.allow_spinning": "0"})

# What a manifest may set: keys that change speed, memory or rounding. Others write files, read folders
# outside the variant's, or crash; a manifest comes from the repository, not from the operator.
_ALLOWED: Final = frozenset(
    {
        "session.intra_op.allow_spinning",
        "session.force_spinning_stop",
        "session.disable_prepacking",
        "session.set_denormal_as_zero",
        "session.dynamic_block_base",
        "session.disable_quant_qdq",
        "session.disable_double_qdq_remover",
        "session.enable_quant_qdq_cleanup",
        "session.qdqisint8allowed",
        "session.qdq_matmulnbits_accuracy_level",
        "session.disable_aot_function_inlining",
        "session.enable_gelu_approximation",
        "mlas.enable_gemm_fastmath_arm64_bfloat16",
    }
)

# Concurrency comes from runs side by side: one thread each wastes least at the seams between operators.
_DEFAULT_THREADS: Final = 1

# Problems come as exceptions; what onnxruntime also prints would be said twice.
_LOG_FATAL_ONLY: Final = 4


def make_options(settings: SessionSettings, cores: int, what: str) -> onnxruntime.SessionOptions:
    """Return session options; `what` is the variant as a sentence names it.

    More threads than `cores` are never started, whatever the manifest was measured with.

    Raises:
        LoadFailed: the settings hold a key that a manifest may not set.
    """
    refused = sorted(set(settings.config_entries) - _ALLOWED)
    if refused:
        raise LoadFailed(f"{what} asks for the session setting {refused[0]!r}, which a manifest may not set.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(settings.intra_op_threads or _DEFAULT_THREADS, cores)
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_FATAL_ONLY
    for key, value in {**_DEFAULTS, **settings.config_entries}.items():
        options.add_session_config_entry(key, value)
    return options
