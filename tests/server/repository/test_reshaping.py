"""Reshape: what callers see and what the model has, with the example of Triton's own densenet."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.completion import complete
from flyweight.server.repository.model_config import parse_model_config
from flyweight.server.repository.reshaping import Reshape, reshapes_of
from flyweight.server.runtime.signature import Signature, TensorSpec


def config(text: str) -> ModelConfig:
    return parse_model_config(text, Path("config.pbtxt"))


DENSENET = config(
    """
    input [{name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [3, 224, 224]
            reshape {shape: [1, 3, 224, 224]}}]
    output [{name: "fc6_1" data_type: TYPE_FP32 dims: [1000] reshape {shape: [1, 1000, 1, 1]}}]
    """
)
DENSENET_SESSION = Signature(
    (TensorSpec("data_0", "FP32", (1, 3, 224, 224)),), (TensorSpec("fc6_1", "FP32", (1, 1000, 1, 1)),)
)


def test_callers_see_dims_and_the_model_gets_its_shape() -> None:
    _, signature = complete(DENSENET, "m", DENSENET_SESSION)
    assert signature.inputs[0].shape == (3, 224, 224)
    assert signature.outputs[0].shape == (1000,)
    reshapes = reshapes_of(DENSENET, "m")
    assert reshapes.inputs["data_0"].inward((3, 224, 224)) == (1, 3, 224, 224)
    assert reshapes.outputs["fc6_1"].outward((1, 1000, 1, 1)) == (1000,)


def test_an_empty_reshape_takes_one_element_a_row() -> None:
    given_ = config(
        'max_batch_size: 4 input [{name: "x" data_type: TYPE_INT64 dims: [1] reshape {shape: []}}]'
    )
    session = Signature((TensorSpec("x", "INT64", (-1,)),), (TensorSpec("y", "FP32", (-1, 2)),))
    _, signature = complete(given_, "m", session)
    assert signature.inputs[0].shape == (-1, 1)
    assert reshapes_of(given_, "m").inputs["x"].inward((3, 1)) == (3,)


def test_what_the_model_fixes_is_fixed_for_callers() -> None:
    given_ = config('input [{name: "x" data_type: TYPE_FP32 dims: [-1, 2] reshape {shape: [-1, 2, 1]}}]')
    session = Signature((TensorSpec("x", "FP32", (5, 2, 1)),), (TensorSpec("y", "FP32", (1,)),))
    _, signature = complete(given_, "m", session)
    assert signature.inputs[0].shape == (5, 2)


def test_an_input_and_an_output_of_one_name_are_kept_apart() -> None:
    given_ = config(
        'input [{name: "x" data_type: TYPE_FP32 dims: [4] reshape {shape: [2, 2]}}] '
        'output [{name: "x" data_type: TYPE_FP32 dims: [4]}]'
    )
    session = Signature((TensorSpec("x", "FP32", (2, 2)),), (TensorSpec("x", "FP32", (4,)),))
    _, signature = complete(given_, "m", session)
    assert (signature.inputs[0].shape, signature.outputs[0].shape) == ((4,), (4,))


@pytest.mark.parametrize(
    ("dims", "shape"),
    [("[4]", "[5]"), ("[-1, 2]", "[2]"), ("[-1, 2]", "[2, -1]"), ("[0]", "[0]"), ("[4]", "[-2]")],
)
def test_shapes_that_do_not_hold_the_same_elements_are_refused(dims: str, shape: str) -> None:
    with pytest.raises(LoadFailed, match=r"^The config\.pbtxt of m reshapes 'x'"):
        reshapes_of(config(f'input [{{name: "x" dims: {dims} reshape {{shape: {shape}}}}}]'), "m")


def test_dims_that_the_model_does_not_have_behind_the_reshape_are_refused() -> None:
    given_ = config('input [{name: "x" data_type: TYPE_FP32 dims: [4] reshape {shape: [2, 2]}}]')
    with pytest.raises(LoadFailed, match=r"has dims \[2, 2\], but the model has \[4\]"):
        complete(given_, "m", Signature((TensorSpec("x", "FP32", (4,)),), ()))


@given(st.lists(st.integers(1, 5), max_size=4), st.integers(1, 9), st.booleans())
def test_outward_undoes_inward(lengths: list[int], free: int, batched: bool) -> None:
    """The example of Triton's own documents, [2, 4, -1, 6] to [8, -1, 1, 6], with any batch and length."""
    reshape = Reshape((2, 4, -1, 6), (8, -1, 1, 6), batch_axes=int(batched))
    batch = (len(lengths),) if batched else ()
    shape = (*batch, 2, 4, free, 6)
    assert reshape.inward(shape) == (*batch, 8, free, 1, 6)
    assert reshape.outward(reshape.inward(shape)) == shape
