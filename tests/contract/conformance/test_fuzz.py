"""Requests nobody would write: whatever comes, the server knows what happened, and lives.

REQUIRED: never INTERNAL or UNKNOWN for bytes that are a ModelInferRequest, and never silence. For bytes that
are none INTERNAL is gRPC's own word (doc/statuscodes.md, "Error parsing request proto").
"""

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from oip.cases import BEWILDERED, ROBUSTNESS, SILENCE, case
from oip.encoding import DATATYPES, FIELDS
from oip.models import MODELS
from oip.requests import add_sub_request, identity_request
from oip.target import Target

from flyweight.protos.inference.grpc_service_pb2 import InferParameter, ModelInferRequest

hypothesis = pytest.importorskip("hypothesis", reason="the fuzzer needs the package hypothesis")
st: Any = hypothesis.strategies
composite: Any = st.composite

# The slow model would be asked to work for years, and unfinished sequences hold their places.
NAMES = [model.name for model in MODELS if model.name not in {"slow", "counter"}]
TENSORS = ["INPUT", "INPUT0", "INPUT1", "OUTPUT", "OUTPUT0", "", "x" * 1000]
EDGES = [0, 1, 2, 3, 4, 8, -1, 2**31, 2**32, 2**62, 2**63 - 1, -(2**63)]
RESERVED = [
    *("priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "classification"),
    *("shared_memory_region", "shared_memory_byte_size", "shared_memory_offset", "binary_data", "\u00e4"),
]


def parameters() -> Any:
    whole = st.sampled_from(EDGES)
    value = st.one_of(
        st.builds(InferParameter, bool_param=st.booleans()),
        st.builds(InferParameter, int64_param=whole.filter(lambda n: n < 2**63)),
        st.builds(InferParameter, uint64_param=whole.filter(lambda n: n >= 0)),
        st.builds(InferParameter, string_param=st.text(max_size=8)),
        st.builds(InferParameter, double_param=st.floats()),
    )
    return st.dictionaries(st.sampled_from(RESERVED), value, max_size=2)


def shapes() -> Any:
    return st.lists(st.one_of(st.integers(0, 4), st.sampled_from(EDGES)), max_size=4)


@composite
def requests(draw: Any) -> Any:
    """Draw a request that is almost right: names and datatypes that exist, lengths that seldom agree."""
    made = ModelInferRequest(model_name=draw(st.sampled_from(NAMES)), id=draw(st.text(max_size=4)))
    made.model_version = draw(st.sampled_from(["", "", "", "1", "2", "-1", "latest"]))
    for _ in range(draw(st.integers(0, 3))):
        tensor = made.inputs.add(name=draw(st.sampled_from(TENSORS)), shape=draw(shapes()))
        tensor.datatype = draw(st.sampled_from([*DATATYPES, "", "FP8", "fp32"]))
        if draw(st.integers(0, 3)) == 0:
            _put_typed(draw, tensor.contents)
        _put_parameters(tensor.parameters, draw(parameters()))
    for _ in range(draw(st.integers(0, 3))):
        made.raw_input_contents.append(draw(st.one_of(st.binary(max_size=64), st.just(bytes(16)))))
    for name in draw(st.lists(st.sampled_from(TENSORS), max_size=2)):
        _put_parameters(made.outputs.add(name=name).parameters, draw(parameters()))
    _put_parameters(made.parameters, draw(parameters()))
    return made


def _put_typed(draw: Any, contents: Any) -> None:
    field = draw(st.sampled_from(sorted(set(FIELDS.values()))))
    values = {
        "bool_contents": st.booleans(),
        "bytes_contents": st.binary(max_size=8),
        "fp32_contents": st.floats(width=32),
        "fp64_contents": st.floats(),
    }.get(field, st.integers(0, 2**31 - 1))
    getattr(contents, field).extend(draw(st.lists(values, max_size=5)))


def _put_parameters(where: Any, drawn: dict[str, InferParameter]) -> None:
    for name, value in drawn.items():
        where[name].CopyFrom(value)


@composite
def mutated(draw: Any) -> bytes:
    """Draw a good request's bytes with some of them changed, cut out or doubled."""
    good = [
        add_sub_request(identity="id", outputs=["OUTPUT0"]),
        identity_request("BYTES", np.array([b"ab"], object)),
    ]
    data = bytearray(draw(st.sampled_from(good)).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(data)


def must_know_what_happened(target: Target, body: bytes) -> None:
    answer = target.infer(body)
    allowed = frozenset() if _is_request(body) else BEWILDERED
    forbidden = (BEWILDERED | SILENCE) - allowed
    assert answer.code not in forbidden, f"REQUIRED none of INTERNAL, UNKNOWN, silence; answered {answer}"


def _is_request(body: bytes) -> bool:
    try:
        ModelInferRequest.FromString(body)
    except DecodeError:
        return False
    return True


def fuzz(request: pytest.FixtureRequest, strategy: Any, check: Any) -> None:
    """Try as many examples as were asked for, the same ones in each run."""
    examples = request.config.getoption("fuzz_examples", 60)
    settings = hypothesis.settings(max_examples=examples, database=None, print_blob=False)
    settings(hypothesis.given(strategy)(check))()


@case("fuzz/structured", ROBUSTNESS)
def test_requests_that_are_almost_right(target: Target, request: pytest.FixtureRequest) -> None:
    """Requests with existing names and lying lengths, shapes, contents and parameters are answered.

    Source: none in the protocol.
    """
    fuzz(request, requests(), lambda drawn: must_know_what_happened(target, drawn.SerializeToString()))
    target.must_still_answer()


@case("fuzz/bytes", ROBUSTNESS)
def test_bytes_that_were_a_request(target: Target, request: pytest.FixtureRequest) -> None:
    """Good requests with bytes changed, lost and doubled are answered.

    Source: none in the protocol.
    """
    fuzz(request, mutated(), lambda drawn: must_know_what_happened(target, drawn))
    target.must_still_answer()
