from pathlib import Path

import pytest

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.completion import DEFAULT_MAX_BATCH_ROWS, complete
from flyweight.server.repository.model_config import parse_model_config
from flyweight.server.runtime.signature import Signature, TensorSpec

IMAGES = Signature((TensorSpec("x", "FP32", (-1, 3, -1, -1)),), (TensorSpec("y", "FP32", (-1, 10)),))
SCALAR = Signature(
    (TensorSpec("x", "INT64", (-1,)), TensorSpec("k", "BYTES", ())), (TensorSpec("y", "BOOL", (-1,)),)
)
FIXED = Signature((TensorSpec("x", "FP32", (1, 4)),), (TensorSpec("y", "FP32", (1, 4)),))


def config(text: str) -> ModelConfig:
    return parse_model_config(text, Path("config.pbtxt"))


def test_without_a_configuration_all_is_taken_from_the_session() -> None:
    completed, signature = complete(None, "m", IMAGES)
    expected = config(
        """
        name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime" default_model_filename: "model.onnx"
        version_policy {latest {num_versions: 1}} max_batch_size: 1024
        input [{name: "x" data_type: TYPE_FP32 dims: [3, -1, -1]}]
        output [{name: "y" data_type: TYPE_FP32 dims: [10]}]
        """
    )
    assert completed == expected
    assert signature == Signature(IMAGES.inputs, IMAGES.outputs, max_batch_rows=DEFAULT_MAX_BATCH_ROWS)


@pytest.mark.parametrize("session", [SCALAR, FIXED])
def test_without_a_free_first_axis_everywhere_there_is_no_batching(session: Signature) -> None:
    completed, signature = complete(None, "m", session)
    assert completed.max_batch_size == signature.max_batch_rows == 0
    assert [tuple(each.dims) for each in completed.input] == [spec.shape for spec in session.inputs]


def test_types_are_told_in_tritons_words() -> None:
    completed, _ = complete(None, "m", SCALAR)
    text = str(completed)
    assert "TYPE_INT64" in text
    assert "TYPE_STRING" in text
    assert "TYPE_BOOL" in text


def test_dims_of_the_configuration_narrow_the_signature() -> None:
    given = config(
        'max_batch_size: 8 input [{name: "x" data_type: TYPE_FP32 dims: [3, 224, -1]}] '
        'output [{name: "y" data_type: TYPE_FP32 dims: [-1]}]'
    )
    completed, signature = complete(given, "m", IMAGES)
    assert signature.inputs[0].shape == (-1, 3, 224, -1)
    assert signature.outputs[0].shape == (-1, 10)
    assert signature.max_batch_rows == 8
    assert list(completed.input[0].dims) == [3, 224, -1]
    assert given.name == "", "the configuration that was given is left as it was"


def test_a_configuration_without_batching_writes_all_axes() -> None:
    given = config('input [{name: "x" data_type: TYPE_FP32 dims: [1, 3, -1, -1]}]')
    _, signature = complete(given, "m", IMAGES)
    assert signature.max_batch_rows == 0
    assert signature.inputs[0].shape == (1, 3, -1, -1)


def test_only_outputs_that_are_listed_are_given() -> None:
    session = Signature(IMAGES.inputs, (*IMAGES.outputs, TensorSpec("z", "FP32", (-1, 2))))
    given = config('max_batch_size: 4 output [{name: "z" data_type: TYPE_FP32 dims: [2]}]')
    _, signature = complete(given, "m", session)
    assert [spec.name for spec in signature.outputs] == ["z"]


def test_weights_are_inputs_only_if_they_are_listed() -> None:
    session = Signature((*FIXED.inputs, TensorSpec("w", "FP32", (4,), optional=True)), FIXED.outputs)
    _, signature = complete(None, "m", session)
    assert [spec.name for spec in signature.inputs] == ["x"]
    given = config(
        'input [{name: "x" data_type: TYPE_FP32 dims: [1, 4]}, {name: "w" data_type: TYPE_FP32 dims: [4]}]'
    )
    _, signature = complete(given, "m", session)
    assert [(spec.name, spec.optional) for spec in signature.inputs] == [("x", False), ("w", True)]


@pytest.mark.parametrize(
    ("session", "text", "sentence"),
    [
        (
            FIXED,
            "max_batch_size: 8",
            "sets max_batch_size to 8, but the first axis of its inputs and outputs",
        ),
        (IMAGES, "max_batch_size: -1", "sets max_batch_size to -1"),
        (IMAGES, 'input [{name: "z" data_type: TYPE_FP32}]', "the input 'z' is not one of the model's (x)"),
        (SCALAR, 'input [{name: "x" data_type: TYPE_INT64 dims: [-1]}]', "the input 'k' is not listed"),
        (
            IMAGES,
            'input [{name: "x" data_type: TYPE_INT8 dims: [-1, 3, -1, -1]}]',
            "the input 'x' is TYPE_INT8, but the model's is TYPE_FP32",
        ),
        (
            IMAGES,
            'input [{name: "x" data_type: TYPE_FP32 dims: [3, 224, 224]}]',
            (
                "the input 'x' has dims [3, 224, 224], but the model has [-1, 3, -1, -1]; dims leave out the "
                "batch axis if, and only if, max_batch_size is above 0"
            ),
        ),
        (
            IMAGES,
            'max_batch_size: 8 output [{name: "y" data_type: TYPE_FP32 dims: [11]}]',
            "the output 'y' has dims [11], but the model has [-1, 10]",
        ),
    ],
)
def test_a_contradiction_is_named(session: Signature, text: str, sentence: str) -> None:
    with pytest.raises(LoadFailed) as caught:
        complete(config(text), "m", session)
    assert sentence in str(caught.value)
