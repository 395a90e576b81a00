"""What goes with the tensors of a ModelInfer: ids, versions, names, orders, parameters."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from oip.cases import MUST, ROBUSTNESS, SHOULD, Code, case, extension
from oip.requests import A, B, add_raw, add_sub_request, parameter, request
from oip.target import Target

from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelMetadataRequest


@pytest.mark.parametrize(
    "identity",
    [
        pytest.param("42", id="short"),
        pytest.param("\u00e4\U0001f40b \n", id="unicode"),
        pytest.param("x" * 5000, id="long"),
    ],
)
@case("infer/id-echoed", MUST)
def test_the_id_comes_back(target: Target, identity: str) -> None:
    """The response's id is the request's.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.id: "if specified, will be returned".
    """
    assert target.infer(add_sub_request(identity=identity)).must_be_ok().id == identity


@case("infer/no-id", SHOULD)
def test_no_id_is_no_id(target: Target) -> None:
    """A request without an id gets a response without one.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.id: optional.
    """
    assert target.infer(add_sub_request()).must_be_ok().id == ""


@case("infer/model-named", MUST)
def test_the_response_names_the_model_and_its_version(target: Target) -> None:
    """The response tells which model and which version answered; where versions are listed, one of those.

    Source: Open Inference Protocol, gRPC, ModelInferResponse.model_name and model_version.
    """
    response = target.infer(add_sub_request()).must_be_ok()
    versions = target.call("ModelMetadata", ModelMetadataRequest(name="add_sub")).must_be_ok().versions
    assert response.model_name == "add_sub"
    assert not versions or response.model_version in versions


@case("infer/version-asked-for", MUST)
def test_the_version_that_is_asked_for_answers(target: Target) -> None:
    """A request that names a version is answered by it.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.model_version.
    """
    versions = target.call("ModelMetadata", ModelMetadataRequest(name="add_sub")).must_be_ok().versions
    for version in versions:
        assert target.infer(add_sub_request(version=version)).must_be_ok().model_version == version


@case("infer/all-outputs", MUST)
def test_all_outputs_come_when_none_is_named(target: Target) -> None:
    """A request that names no output gets all of them, with their datatypes and shapes.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.outputs: "if not specified all outputs".
    """
    tensors = target.infer(add_sub_request()).tensors()
    assert {name: (datatype, array.shape) for name, (datatype, array) in tensors.items()} == {
        "OUTPUT0": ("FP32", (1, 4)),
        "OUTPUT1": ("FP32", (1, 4)),
    }
    assert (tensors["OUTPUT0"][1] == A + B).all()
    assert (tensors["OUTPUT1"][1] == A - B).all()


@pytest.mark.parametrize("name", ["OUTPUT0", "OUTPUT1"])
@case("infer/one-output", MUST)
def test_only_the_named_output_comes(target: Target, name: str) -> None:
    """A request that names one output gets that one.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.outputs.
    """
    tensors = target.infer(add_sub_request(outputs=[name])).tensors()
    expected = A + B if name == "OUTPUT0" else A - B
    assert list(tensors) == [name]
    assert (tensors[name][1] == expected).all()


@case("infer/output-order", SHOULD)
def test_outputs_come_in_the_order_of_the_request(target: Target) -> None:
    """Named outputs come in the order in which they were named; clients that go by position rely on it.

    Source: none in the protocol, which only ties the raw contents to the order of the outputs.
    """
    for names in (["OUTPUT0", "OUTPUT1"], ["OUTPUT1", "OUTPUT0"]):
        tensors = target.infer(add_sub_request(outputs=names)).tensors()
        assert (tensors["OUTPUT0"][1] == A + B).all(), "REQUIRED contents that belong to their names"
        assert list(tensors) == names


@case("infer/input-order", MUST)
def test_inputs_are_told_apart_by_their_names(target: Target) -> None:
    """Inputs may come in any order; raw contents follow the order of the request.

    Source: Open Inference Protocol, gRPC, ModelInferRequest.raw_input_contents.
    """
    asked = request("add_sub")
    add_raw(asked, "INPUT1", "FP32", B)
    add_raw(asked, "INPUT0", "FP32", A)
    assert (target.infer(asked).tensors()["OUTPUT1"][1] == A - B).all()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(InferParameter(string_param="text"), id="string"),
        pytest.param(InferParameter(int64_param=-5), id="int64"),
        pytest.param(InferParameter(bool_param=True), id="bool"),
        pytest.param(InferParameter(double_param=0.5), id="double"),
        pytest.param(InferParameter(uint64_param=2**64 - 1), id="uint64"),
    ],
)
@case("infer/unknown-parameter", SHOULD)
def test_unknown_parameters_do_no_harm(target: Target, value: InferParameter) -> None:
    """A parameter that the server has no use for is ignored, of the request, of an input and of an output.

    Source: Open Inference Protocol, gRPC, "optional inference parameters".
    """
    asked = add_sub_request(outputs=["OUTPUT0"])
    for where in (asked, asked.inputs[0], asked.outputs[0]):
        where.parameters["of_somebody_else"].CopyFrom(value)
    assert (target.infer(asked).tensors()["OUTPUT0"][1] == A + B).all()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("priority", 1, id="priority"),
        pytest.param("priority", 0, id="no-priority"),
        pytest.param("timeout", 10_000_000, id="timeout"),
        pytest.param("timeout", 0, id="no-timeout"),
    ],
)
@case("infer/scheduling", extension("schedule_policy"))
def test_scheduling_parameters_are_taken(target: Target, name: str, value: int) -> None:
    """A request with a priority, or with a timeout in microseconds, is answered.

    Source: Triton, protocol extensions, "Schedule Policy Extension".
    """
    asked = add_sub_request()
    asked.parameters[name].CopyFrom(parameter(value))
    assert (target.infer(asked).tensors()["OUTPUT0"][1] == A + B).all()


@pytest.mark.parametrize(
    "name", ["sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "binary_data_output"]
)
@case("infer/reserved-parameter-of-a-wrong-type", ROBUSTNESS)
def test_reserved_parameters_of_a_wrong_type_are_no_disaster(target: Target, name: str) -> None:
    """A reserved parameter of another type is refused as INVALID_ARGUMENT; ALLOWED: it is ignored (OK).

    Source: Triton, protocol extensions, "Parameters Extension": the reserved names.
    """
    asked = add_sub_request()
    asked.parameters[name].CopyFrom(InferParameter(double_param=0.5))
    target.infer(asked).must_be(Code.INVALID_ARGUMENT, Code.OK)


@case("infer/concurrent", MUST)
def test_concurrent_callers_get_their_own_answers(target: Target) -> None:
    """Answers are never mixed up between callers, whatever is batched with what.

    Source: Open Inference Protocol, gRPC, "Inference": one request, its response.
    """

    def ask(number: int) -> bool:
        rows = 1 + number % 3
        a = np.full((rows, 4), number, "<f4")
        answer = target.infer(add_sub_request(a, a * 2, identity=str(number)))
        tensors = answer.tensors()
        mine = tensors["OUTPUT0"][1].shape == (rows, 4) and (tensors["OUTPUT0"][1] == number * 3).all()
        return bool(mine) and answer.response.id == str(number)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(200)))


@case("infer/bad-company", ROBUSTNESS)
def test_good_requests_among_bad_ones_are_answered(target: Target) -> None:
    """A bad request fails alone: those that come beside it get their answers.

    Source: none in the protocol.
    """

    def ask(number: int) -> bool:
        if number % 2:
            return target.infer(add_sub_request(np.zeros((1, 3), "<f4"))).code is not Code.OK
        return bool((target.infer(add_sub_request()).tensors()["OUTPUT0"][1] == A + B).all())

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(ask, range(100)))
