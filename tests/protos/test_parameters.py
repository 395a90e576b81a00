"""Parameters as plain values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyweight.protos.errors import TensorError
from flyweight.protos.inference.grpc_service_pb2 import InferParameter
from flyweight.protos.tensors import ParameterValue, parameter, parameters_to_dict

VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_values_survive_with_their_types(values: dict[str, ParameterValue]) -> None:
    decoded = parameters_to_dict({name: parameter(value) for name, value in values.items()})
    assert decoded == values
    assert [type(value) for value in decoded.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("value", "field"),
    [
        (True, "bool_param"),
        (-1, "int64_param"),
        (2**63 - 1, "int64_param"),
        (2**63, "uint64_param"),
        (1.0, "double_param"),
        ("", "string_param"),
    ],
)
def test_each_type_has_its_field(value: ParameterValue, field: str) -> None:
    assert parameter(value).WhichOneof("parameter_choice") == field


def test_a_parameter_without_a_value_is_left_out() -> None:
    assert parameters_to_dict({"empty": InferParameter(), "zero": InferParameter(int64_param=0)}) == {
        "zero": 0
    }


@pytest.mark.parametrize("value", [2**64, -(2**63) - 1, None, b"bytes", [1]])
def test_what_no_parameter_can_hold_is_refused(value: ParameterValue) -> None:
    with pytest.raises(TensorError, match="A parameter cannot be"):
        parameter(value)
