"""Which session settings a repository may make, by name.

Apart from the code that makes them: whoever reads repositories, and leaves the sessions to others, needs the
names and no onnxruntime.
"""

from typing import Final

# Settings that onnxruntime has as attributes and not as config entries, by Triton's names for them.
GRAPH_LEVEL: Final = "graph_level"
OPTION_WORDS: Final = frozenset(
    {"execution_mode", "inter_op_thread_count", "enable_mem_arena", "enable_mem_pattern", GRAPH_LEVEL}
)

# Those with which a session has threads of its own.
THREAD_WORDS: Final = frozenset({"execution_mode", "inter_op_thread_count"})

# Settings of a run, which a repository writes beside those of the session.
ARENA_SHRINKAGE: Final = "memory.enable_memory_arena_shrinkage"
RUN_ENTRIES: Final = frozenset({ARENA_SHRINKAGE})

# What a manifest may set: keys that change speed, memory or rounding. Others write files, read folders
# outside the variant's, or crash; a manifest comes from the repository, not from the operator.
_CONFIG_ENTRIES: Final = frozenset(
    {
        "session.intra_op.allow_spinning",
        "session.force_spinning_stop",
        "session.disable_prepacking",
        "session.use_device_allocator_for_initializers",
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


def is_option_word(key: str) -> bool:
    """Tell whether a setting is an attribute of the session's options."""
    return key in OPTION_WORDS


def is_allowed(key: str) -> bool:
    """Tell whether a setting is one that a repository may make."""
    return key in _CONFIG_ENTRIES or key in RUN_ENTRIES or is_option_word(key)
