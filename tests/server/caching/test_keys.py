"""What makes two requests the same."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.server.caching import key_of

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def key(**changes: Any) -> bytes:
    arguments: dict[str, Any] = {"instance": 1, "inputs": {"x": X}, "wanted": ["y"], "parameters": ()}
    return key_of(**{**arguments, **changes})


def test_the_same_request_has_the_same_key_in_any_order() -> None:
    inputs = {"x": X, "z": X + 1}
    turned = {"z": X + 1, "x": X.copy()}
    assert key(inputs=inputs, wanted=["a", "b"]) == key(inputs=turned, wanted=["b", "a"])
    assert key(inputs={"x": np.asfortranarray(X)}) == key()


@pytest.mark.parametrize(
    "change",
    [
        {"instance": 2},
        {"inputs": {"z": X}},
        {"inputs": {"x": X.reshape(3, 2)}},
        {"inputs": {"x": X + 1}},
        {"inputs": {"x": X.view(np.int32)}},
        {"inputs": {"x": X, "z": X}},
        {"wanted": ["z"]},
        {"wanted": ["y", "z"]},
        {"wanted": []},
        {"parameters": [("y", "3")]},
    ],
)
def test_anything_that_changes_the_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert key(**change) != key()


@given(st.lists(st.binary(max_size=4), min_size=1, max_size=4), st.lists(st.binary(max_size=4), min_size=1))
def test_strings_are_told_apart_wherever_they_end(a: list[bytes], b: list[bytes]) -> None:
    def of(strings: list[bytes]) -> bytes:
        return key(inputs={"x": np.array(strings, dtype=object)})

    assert (of(a) == of(b)) == (a == b)


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_names_are_told_apart_wherever_they_end(a: list[str], b: list[str]) -> None:
    assert (key(wanted=a) == key(wanted=b)) == (sorted(a) == sorted(b))


def test_an_empty_tensor_and_a_scalar_have_keys() -> None:
    empty, scalar = np.zeros((0, 3), np.float32), np.array(1.0, np.float32)
    assert len({key(inputs={"x": empty}), key(inputs={"x": scalar}), key()}) == 3
