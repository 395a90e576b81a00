from pathlib import Path

import pytest

from flyweight.server.errors import LoadFailed
from flyweight.server.repository.model_config import named_files, parse_model_config, require_supported
from flyweight.server.repository.scan import LARGEST_TEXT_CHARACTERS

PATH = Path("/repository/m/config.pbtxt")


def test_a_configuration_is_read() -> None:
    config = parse_model_config('max_batch_size: 8 input [{name: "x" data_type: TYPE_FP32 dims: [4]}]', PATH)
    assert config.max_batch_size == 8
    assert config.input[0].name == "x"


@pytest.mark.parametrize(
    "text",
    ["max_batch_size: eight", "nonsense: 1", "input [", "name: \ufffd", f"input {{data_type: {10**30}}}"],
)
def test_a_text_that_is_not_one_gets_one_sentence(text: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        parse_model_config(text, PATH)
    sentence = str(caught.value)
    assert sentence.startswith(f"{PATH} is not a model configuration (")
    assert sentence.endswith("); correct it.")
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('input [{name: "x" data_type: 43}]', "data_type: 43"),
        ("input [{format: 11}]", "format: 11"),
        ('model_warmup [{inputs {key: "x" value {data_type: 112}}}]', "data_type: 112"),
        ("instance_group [{kind: 9}]", "kind: 9"),
    ],
)
def test_a_number_that_names_nothing_is_refused(text: str, said: str) -> None:
    """A message takes any number for an enumeration, and whoever asks for its name gets an error."""
    with pytest.raises(LoadFailed, match=f"config.pbtxt says {said}, and no value has this number"):
        parse_model_config(text, PATH)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('platform: "tensorflow_savedmodel"', "the platform 'tensorflow_savedmodel'"),
        ('backend: "python"', "the backend 'python'"),
        ('name: "other"', "the name 'other'"),
        ("ensemble_scheduling {}", "ensemble_scheduling"),
        ('platform: "ensemble"', "without ensemble_scheduling"),
        ('platform: "ensemble" backend: "onnxruntime" ensemble_scheduling {}', "backend empty"),
        ('platform: "ensemble" ensemble_scheduling {step [{}]} instance_group [{}]', "instance_group"),
        ('platform: "ensemble" ensemble_scheduling {step [{}]} optimization {}', "optimization"),
        ('platform: "ensemble" ensemble_scheduling {step [{}]} model_warmup [{}]', "model_warmup"),
        (
            'platform: "ensemble" ensemble_scheduling {step [{}]} response_cache {enable: true}',
            "a response_cache, and an ensemble's answers change",
        ),
        ('runtime: "libtriton_python.so"', "the runtime 'libtriton_python.so'"),
        ('cc_model_filenames {key: "7.5" value: "t4.onnx"}', "cc_model_filenames"),
        ('input [{name: "x" format: FORMAT_NCHW dims: [4]}]', "FORMAT_NCHW, which takes 3 dims"),
        ('output [{name: "y" is_non_linear_format_io: true}]', "'y' a non-linear format"),
        ('input [{name: "x" dims: [0]}]', "'x' a length of 0"),
        ("batch_input [{target_name: 'x'}]", "batch_input"),
        ("batch_output [{target_name: 'x'}]", "batch_output"),
        ("model_transaction_policy {decoupled: true}", "decoupled"),
        ('model_operations {op_library_filename: "ops.so"}', "'ops.so'"),
        ("model_repository_agents {agents: [{name: 'checksum'}]}", "model_repository_agents"),
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
        "",
        'platform: "onnxruntime_onnx"',
        'platform: "onnxruntime"',
        'backend: "onnxruntime" name: "m"',
        "dynamic_batching {} instance_group [{count: 2}] response_cache {enable: true}",
        "optimization {graph {level: 1}}",
    ],
)
def test_an_onnx_model_needs_no_note(text: str) -> None:
    assert require_supported(parse_model_config(text, PATH), "m") == ()


def test_a_text_that_is_too_long_is_refused_and_not_cut() -> None:
    with pytest.raises(LoadFailed, match="is longer than 131072 characters; shorten it"):
        parse_model_config("#" * (LARGEST_TEXT_CHARACTERS + 1), PATH)


def test_the_files_that_a_configuration_names_are_known() -> None:
    config = parse_model_config(
        """
        output [{name: "y" label_filename: "labels.txt"}, {name: "z"}]
        model_warmup [{inputs {key: "x" value {input_data_file: "raw"}}}]
        sequence_batching {state [{initial_state: {data_file: "zero"}}]}
        """,
        PATH,
    )
    assert named_files(config) == {"labels.txt", "warmup/raw", "initial_state/zero"}
    assert named_files(None) == frozenset()
