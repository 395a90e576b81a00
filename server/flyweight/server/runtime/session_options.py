"""How the settings of a variant become onnxruntime's session options."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import onnxruntime

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.option_words import apply_word
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session_entries import (
    ARENA_SHRINKAGE,
    RUN_ENTRIES,
    is_allowed,
    is_option_word,
)

# A spinning idle thread takes a core from everybody else, so it is off unless the manifest says otherwise.
_DEFAULTS: Final[Mapping[str, str]] = MappingProxyType({"session.intra_op.allow_spinning": "0"})

_CPU_ARENA: Final = "cpu:0"

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
    refused = sorted(key for key in settings.config_entries if not is_allowed(key))
    if refused:
        raise LoadFailed(f"{what} asks for the session setting {refused[0]!r}, which a manifest may not set.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = min(settings.intra_op_threads or _DEFAULT_THREADS, cores)
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = _LOG_FATAL_ONLY
    for key, value in sorted({**_DEFAULTS, **settings.config_entries}.items()):
        if is_option_word(key):
            apply_word(options, key, value, cores, what)
        elif key not in RUN_ENTRIES:
            options.add_session_config_entry(key, value)
    _require_arena(options, settings, what)
    return options


def run_options_of(settings: SessionSettings) -> onnxruntime.RunOptions | None:
    """Return the options of every run, which threads may share; None for onnxruntime's defaults."""
    value = settings.config_entries.get(ARENA_SHRINKAGE)
    if not value:
        return None
    options = onnxruntime.RunOptions()
    options.add_run_config_entry(ARENA_SHRINKAGE, value)
    return options


def _require_arena(options: onnxruntime.SessionOptions, settings: SessionSettings, what: str) -> None:
    """Raise if an arena is to shrink that there is not: every run would fail."""
    value = settings.config_entries.get(ARENA_SHRINKAGE, "")
    if value not in {"", _CPU_ARENA}:
        raise LoadFailed(
            f"{what} sets {ARENA_SHRINKAGE!r} to {value!r}; the one arena there is is {_CPU_ARENA!r}."
        )
    if value and not options.enable_cpu_mem_arena:
        raise LoadFailed(
            f"{what} sets {ARENA_SHRINKAGE!r} and turns the arena off, so there is nothing to shrink; "
            "remove either."
        )
