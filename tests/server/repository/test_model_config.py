from pathlib import Path

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.repository.model_config import parse_model_config, require_supported
from flyweight.server.repository.scan import LARGEST_TEXT_CHARACTERS

PATH = Path("/repository/m/config.pbtxt")


def test_a_configuration_is_read() -> None:
    config = parse_model_config('max_batch_size: 8 input [{name: "x" data_type: TYPE_FP32 dims: [4]}]', PATH)
    assert config.max_batch_size == 8
    assert config.input[0].name == "x"


@pytest.mark.parametrize("text", ["max_batch_size: eight", "nonsense: 1", "input [", "name: \ufffd"])
def test_a_text_that_is_not_one_gets_one_sentence(text: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        parse_model_config(text, PATH)
    sentence = str(caught.value)
    assert sentence.startswith(f"{PATH} is not a model configuration (")
    assert sentence.endswith("); correct it.")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('platform: "tensorflow_savedmodel"', "the platform 'tensorflow_savedmodel'"),
        ('backend: "python"', "the backend 'python'"),
        ('name: "other"', "the name 'other'"),
        ("ensemble_scheduling {}", "ensemble_scheduling"),
        ("sequence_batching {}", "sequence_batching"),
        ("batch_input [{target_name: 'x'}]", "batch_input"),
        ("batch_output [{target_name: 'x'}]", "batch_output"),
        ("model_transaction_policy {decoupled: true}", "decoupled"),
        ('model_operations {op_library_filename: "ops.so"}', "'ops.so'"),
        ("model_repository_agents {agents: [{name: 'checksum'}]}", "model_repository_agents"),
        ('input [{name: "x" reshape: {shape: []}}]', "reshapes 'x'"),
        ('output [{name: "y" reshape: {shape: [1]}}]', "reshapes 'y'"),
        ('input [{name: "x" allow_ragged_batch: true}]', "ragged batches of 'x'"),
        ('input [{name: "x" is_shape_tensor: true}]', "'x' a shape tensor"),
    ],
)
def test_what_would_change_answers_is_refused_by_name(text: str, named: str) -> None:
    config = parse_model_config(text, PATH)
    with pytest.raises(LoadFailed, match=r"^The config\.pbtxt of m ") as caught:
        require_supported(config, "m")
    assert named in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "dynamic_batching {max_queue_delay_microseconds: 100}",
        "instance_group [{kind: KIND_GPU count: 2}]",
        'model_warmup [{name: "w"}]',
        "response_cache {enable: true}",
        "optimization {graph: {level: 1}}",
    ],
)
def test_what_changes_no_answer_is_accepted_and_noted(text: str) -> None:
    (note,) = require_supported(parse_model_config(text, PATH), "m")
    assert note.startswith(f"The config.pbtxt of m sets {text.split(maxsplit=1)[0]}: ")


@pytest.mark.parametrize("text", ["", 'platform: "onnxruntime_onnx"', 'backend: "onnxruntime" name: "m"'])
def test_an_onnx_model_needs_no_note(text: str) -> None:
    assert require_supported(parse_model_config(text, PATH), "m") == ()


def test_a_text_that_is_too_long_is_refused_and_not_cut() -> None:
    with pytest.raises(LoadFailed, match="is longer than 131072 characters; shorten it"):
        parse_model_config("#" * (LARGEST_TEXT_CHARACTERS + 1), PATH)
