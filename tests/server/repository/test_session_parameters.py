"""`parameters` and `optimization` of config.pbtxt."""

from pathlib import Path

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.repository.model_config import parse_model_config, require_supported
from flyweight.server.repository.session_parameters import with_parameters
from flyweight.server.runtime.seam import SessionSettings


def settings(text: str, before: SessionSettings | None = None) -> SessionSettings:
    config = parse_model_config(text, Path("config.pbtxt"))
    return with_parameters(before or SessionSettings(), config, "m")


def parameter(key: str, value: str) -> str:
    return f'parameters {{key: "{key}" value {{string_value: "{value}"}}}} '


def test_what_tritons_backend_reads_becomes_session_settings() -> None:
    text = (
        parameter("intra_op_thread_count", "2")
        + parameter("execution_mode", "1")
        + parameter("enable_mem_arena", "0")
        + parameter("session.disable_prepacking", "1")
        + "optimization {graph {level: -1}}"
    )
    assert settings(text) == SessionSettings(
        2,
        {
            "execution_mode": "1",
            "enable_mem_arena": "0",
            "session.disable_prepacking": "1",
            "graph_level": "-1",
        },
    )


def test_the_configuration_overrules_the_manifest_and_keeps_the_rest() -> None:
    before = SessionSettings(4, {"session.disable_prepacking": "1", "enable_mem_arena": "1"})
    after = settings(parameter("enable_mem_arena", "0"), before)
    assert after == SessionSettings(4, {"session.disable_prepacking": "1", "enable_mem_arena": "0"})
    assert before.config_entries["enable_mem_arena"] == "1"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (parameter("intra_op_thread_count", "many"), "'intra_op_thread_count' to 'many'"),
        (parameter("intra_op_thread_count", "-1"), "write a number of threads"),
        (parameter("gpu_mem_limit", "1"), "'gpu_mem_limit' to '1', which is for GPUs"),
        (parameter("session.load_model_format", "ORT"), "'session.load_model_format'"),
        (parameter("ep.context_enable", "1"), "'ep.context_enable'"),
        (parameter("enable_profiling", "1"), "'enable_profiling'"),
        ("optimization {graph {level: 7}}", "the optimization level 7"),
        ("optimization {cuda {graphs: true}}", "CUDA graphs"),
        (
            'optimization {execution_accelerators {gpu_execution_accelerator [{name: "tensorrt"}]}}',
            "'tensorrt'",
        ),
        (
            'optimization {execution_accelerators {cpu_execution_accelerator [{name: "openvino"}]}}',
            "'openvino'",
        ),
    ],
)
def test_what_is_not_done_is_refused_by_name(text: str, named: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The config\.pbtxt of m ") as caught:
        settings(text)
    assert named in str(caught.value)


def test_a_word_of_the_users_own_is_kept_and_noted() -> None:
    """Triton's own example simple_dyna_sequence has one that its backend does not read."""
    text = parameter("execute_delay_ms", "3")
    assert settings(text) == SessionSettings()
    (note,) = require_supported(parse_model_config(text, Path("config.pbtxt")), "m")
    assert "'execute_delay_ms'" in note
