import pytest

from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelInferRequest
from flyweight.server.errors import InvalidRequest
from flyweight.server.rpc.parameters import InferOptions, read_options


def request(**parameters: InferParameter) -> ModelInferRequest:
    return ModelInferRequest(parameters=parameters)


def number(value: int) -> InferParameter:
    return InferParameter(int64_param=value)


def test_a_request_without_parameters_asks_for_nothing() -> None:
    assert read_options(ModelInferRequest()) == InferOptions()


def test_every_option_is_read() -> None:
    true = InferParameter(bool_param=True)
    options = read_options(
        request(
            priority=InferParameter(uint64_param=2),
            timeout=number(1500),
            sequence_id=InferParameter(string_param="talk"),
            sequence_start=true,
            sequence_end=true,
            triton_enable_empty_final_response=true,
            binary_data_output=true,
            anybodys_own=InferParameter(double_param=1.5),
        )
    )
    assert options == InferOptions(2, 0.0015, "talk", True, True, True)


@pytest.mark.parametrize(
    ("parameter", "expected"),
    [
        (number(42), 42),
        (number(-1), -1),
        (InferParameter(uint64_param=2**64 - 1), 2**64 - 1),
        (InferParameter(string_param="a"), "a"),
        (number(0), 0),
    ],
)
def test_a_sequence_is_named_by_number_or_text(parameter: InferParameter, expected: int | str) -> None:
    assert read_options(request(sequence_id=parameter)).sequence_id == expected


def test_no_timeout_is_none() -> None:
    assert read_options(request(timeout=number(0))).timeout_seconds is None


@pytest.mark.parametrize(
    ("name", "parameter", "complaint"),
    [
        ("priority", InferParameter(string_param="1"), "'priority' is a string; send a whole number"),
        ("priority", InferParameter(bool_param=True), "'priority' is a bool"),
        ("priority", InferParameter(), "'priority' is nothing"),
        ("priority", number(-1), "'priority' is -1; send 0 or more"),
        ("timeout", InferParameter(double_param=1), "'timeout' is a double"),
        ("timeout", number(-1), "'timeout' is -1"),
        ("sequence_id", InferParameter(bool_param=True), "'sequence_id' is a bool; send a whole number or"),
        ("sequence_start", number(1), "'sequence_start' is a int64; send true or false"),
        ("sequence_end", InferParameter(string_param="true"), "'sequence_end' is a string"),
        ("triton_enable_empty_final_response", number(1), "'triton_enable_empty_final_response' is a"),
        ("binary_data_output", number(1), "'binary_data_output' is a"),
    ],
)
def test_a_wrong_type_is_refused_by_name(name: str, parameter: InferParameter, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        read_options(request(**{name: parameter}))


@pytest.mark.parametrize("name", ["sequence_start", "sequence_end"])
@pytest.mark.parametrize("identity", [{}, {"sequence_id": number(0)}])
def test_only_a_sequence_has_a_first_or_last_request(name: str, identity: dict[str, InferParameter]) -> None:
    with pytest.raises(InvalidRequest, match="no 'sequence_id'"):
        read_options(request(**identity, **{name: InferParameter(bool_param=True)}))


def test_reading_leaves_the_parameters_as_they_are() -> None:
    """Looking up what is not in a protobuf map would add it, and the response could show it."""
    sent = request(other=number(1))
    read_options(sent)
    assert list(sent.parameters) == ["other"]
