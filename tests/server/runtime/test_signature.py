import numpy as np
import pytest

from flyweight.server.errors import InvalidRequest
from flyweight.server.runtime.signature import Signature, TensorSpec

IMAGES = TensorSpec("image", "FP32", (-1, 3, 8, 8))
IDS = TensorSpec("id", "INT64", (-1,))
BIAS = TensorSpec("bias", "FP32", (4,), optional=True)
SCORE = TensorSpec("score", "FP32", (-1, 10))

BATCHED = Signature((IMAGES, IDS), (SCORE,), max_batch_rows=16)
FIXED = Signature((TensorSpec("x", "FP32", ()), BIAS), (SCORE,))


def images(rows: int = 2, side: int = 8, dtype: type = np.float32) -> np.ndarray:
    return np.zeros((rows, 3, side, side), dtype)


def ids(rows: int = 2) -> np.ndarray:
    return np.zeros(rows, np.int64)


def test_rows_are_the_length_of_the_batch_axis() -> None:
    assert BATCHED.check({"image": images(5), "id": ids(5)}) == 5


def test_a_model_without_a_batch_axis_answers_one_row() -> None:
    assert FIXED.check({"x": np.float32(1).reshape(())}) == 1


def test_an_optional_input_may_be_left_out_or_sent() -> None:
    x = np.float32(1).reshape(())
    assert FIXED.check({"x": x, "bias": np.zeros(4, np.float32)}) == 1
    with pytest.raises(InvalidRequest, match=r"'bias' has shape \[5\] where \[4\]"):
        FIXED.check({"x": x, "bias": np.zeros(5, np.float32)})


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"image": images()}, "The input 'id' is missing; send INT64 of shape [-1]."),
        (
            {"image": images(), "id": ids(), "mask": ids()},
            "There is no input 'mask'; the inputs are 'image', 'id'.",
        ),
        (
            {"image": images(dtype=np.float64), "id": ids()},
            "The input 'image' is FP64 where FP32 is expected.",
        ),
        (
            {"image": images(side=9), "id": ids()},
            "The input 'image' has shape [2, 3, 9, 9] where [-1, 3, 8, 8] is expected.",
        ),
        (
            {"image": images().reshape(2, -1), "id": ids()},
            "The input 'image' has shape [2, 192] where [-1, 3, 8, 8] is expected.",
        ),
        (
            {"image": images(2), "id": ids(3)},
            "The inputs 'image' and 'id' have 2 and 3 rows; send the same number.",
        ),
        ({"image": images(0), "id": ids(0)}, "The input 'image' has no rows; send at least one."),
        (
            {"image": images(17), "id": ids(17)},
            (
                "The input 'image' has 17 rows where at most 16 are allowed; send smaller batches, or raise "
                "max_batch_size in the model's config.pbtxt."
            ),
        ),
    ],
)
def test_a_wrong_input_is_named_with_what_is_expected(inputs: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        BATCHED.check(inputs)
    assert str(caught.value) == sentence


def test_an_unknown_output_is_named() -> None:
    with pytest.raises(InvalidRequest, match="There is no output 'label'; the outputs are 'score'"):
        BATCHED.check({"image": images(), "id": ids()}, ["label"])


def test_known_outputs_may_be_chosen() -> None:
    assert BATCHED.check({"image": images(), "id": ids()}, ["score"]) == 2
