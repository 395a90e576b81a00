"""Stock tritonclient talks to our generated service and our tensor codec, both in one process."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from flyweight.protos.inference import grpc_service_pb2 as messages
from flyweight.protos.inference import grpc_service_pb2_grpc as service
from flyweight.protos.tensors import (
    decode_tensors,
    encode_inputs,
    encode_outputs,
    parameter,
    parameters_to_dict,
)

ARRAYS = {
    "flags": np.array([[True], [False]]),
    "words": np.array([[b"a"], ["hé".encode()]], object),
    "half": np.array([[0.5], [-2]], np.float16),
    "single": np.array([[1.5, -3], [4, 5]], np.float32),
    "long": np.array([[2**40], [-1]], np.int64),
}


class Echo(service.GRPCInferenceServiceServicer):
    """Gives every input back as an output, and every parameter as a parameter."""

    def ModelInfer(  # noqa: N802 - the protocol's name
        self, request: messages.ModelInferRequest, context: object
    ) -> messages.ModelInferResponse:
        response = messages.ModelInferResponse(model_name=request.model_name, id=request.id)
        for name, value in parameters_to_dict(request.parameters).items():
            response.parameters[name].CopyFrom(parameter(value))
        encode_outputs(response, decode_tensors(request.inputs, request.raw_input_contents))
        return response


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(2))
    # To the type checkers every call is abstract; the generated base class answers UNIMPLEMENTED.
    echo = Echo()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    service.add_GRPCInferenceServiceServicer_to_server(echo, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()


def test_every_array_comes_back_through_tritonclient(address: str) -> None:
    inputs = []
    for name, array in ARRAYS.items():
        tensor = triton.InferInput(name, list(array.shape), triton_datatype(array))
        inputs.append(tensor.set_data_from_numpy(array))
    with triton.InferenceServerClient(address) as client:
        result = client.infer("echo", inputs, request_id="7", parameters={"user": "ann", "count": 3})
    assert result is not None
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(result.as_numpy(name), array)
    response = result.get_response()
    assert (response.id, response.model_name) == ("7", "echo")
    assert response.parameters["user"].string_param == "ann"


def test_our_stub_calls_our_service(address: str) -> None:
    request = messages.ModelInferRequest(model_name="echo")
    encode_inputs(request, ARRAYS)
    with grpc.insecure_channel(address) as channel:
        response = service.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=10)
    decoded = decode_tensors(response.outputs, response.raw_output_contents)
    assert list(decoded) == list(ARRAYS)
    np.testing.assert_array_equal(decoded["single"], ARRAYS["single"])


def test_a_call_that_is_not_implemented_says_so(address: str) -> None:
    with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError) as refusal:
        service.GRPCInferenceServiceStub(channel).ServerLive(messages.ServerLiveRequest(), timeout=10)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def triton_datatype(array: np.ndarray) -> str:
    from tritonclient.utils import np_to_triton_dtype

    return str(np_to_triton_dtype(array.dtype))
