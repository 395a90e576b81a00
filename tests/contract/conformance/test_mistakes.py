"""Requests that are wrong: each must be refused, and should be refused by the code that says why.

REQUIRED of every row: an error that is an answer, and not the silence of a server that fell over.
The SHOULD half names the codes, from grpc/grpc's doc/statuscodes.md: INVALID_ARGUMENT for what is wrong in
any state of the server, NOT_FOUND for a model or version that is not there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import numpy as np
import pytest
from oip.cases import MUST, SHOULD, SILENCE, Code, case
from oip.requests import A, B, add_raw, add_sub_request, add_typed, identity_request, request
from oip.target import Target

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest

OIP: Final = "Open Inference Protocol, gRPC, "
INVALID: Final = (Code.INVALID_ARGUMENT,)
MISSING: Final = (Code.NOT_FOUND,)
X: Final = np.arange(4, dtype="<f4")


@dataclass(frozen=True, slots=True)
class Mistake:
    """A wrong request, what is wrong with it, and the codes that say so."""

    statement: str
    make: Callable[[], Any]
    codes: tuple[grpc.StatusCode, ...] = INVALID
    source: str = OIP + '"Inference"'
    models: tuple[str, ...] = ()


def changed(change: Callable[[Any], object], of: Callable[[], Any] = add_sub_request) -> Callable[[], Any]:
    """Return a maker of a good request with `change` done to it."""

    def make() -> Any:
        made = of()
        change(made)
        return made

    return make


def shaped(*shape: int, data: bytes = X.tobytes(), datatype: str = "FP32") -> Callable[[], Any]:
    """Return a maker of a request to an identity model with this shape over these bytes."""

    def make() -> Any:
        made = ModelInferRequest(model_name=f"identity_{datatype.lower()}", raw_input_contents=[data])
        made.inputs.add(name="INPUT", datatype=datatype, shape=shape)
        return made

    return make


def typed(datatype: str, field: str, values: list[Any], *shape: int) -> Callable[[], Any]:
    """Return a maker of a request whose typed contents are these values in this field."""

    def make() -> Any:
        made = request(f"identity_{datatype.lower()}")
        tensor = made.inputs.add(name="INPUT", datatype=datatype, shape=shape)
        getattr(tensor.contents, field).extend(values)
        return made

    return make


def said_twice() -> Any:
    made = identity_request("FP32", X)
    made.inputs[0].contents.fp32_contents.extend(X.tolist())
    return made


def raw_beside_typed() -> Any:
    made = request("add_sub")
    add_raw(made, "INPUT0", "FP32", A)
    add_typed(made, "INPUT1", "FP32", B)
    return made


RAW: Final = OIP + "ModelInferRequest.raw_input_contents"
CONTENTS: Final = OIP + "message InferTensorContents"
SHAPE: Final = OIP + "InferInputTensor.shape"
BYTES: Final = 'Triton, protocol extensions, "Binary Tensor Data Extension", BYTES'

MISTAKES: Final[dict[str, Mistake]] = {
    "inputs/missing": Mistake(
        "An input is missing.", changed(lambda r: (r.inputs.pop(), r.raw_input_contents.pop()))
    ),
    "inputs/none": Mistake("There are no inputs.", lambda: request("add_sub")),
    "inputs/unknown": Mistake(
        "An input has a name that the model does not have.",
        changed(lambda r: add_raw(r, "INPUT9", "FP32", A)),
    ),
    "inputs/renamed": Mistake(
        "An input has another name.", changed(lambda r: setattr(r.inputs[1], "name", "INPUT9"))
    ),
    "inputs/no-name": Mistake("An input has no name.", changed(lambda r: setattr(r.inputs[1], "name", ""))),
    "inputs/duplicate": Mistake(
        "An input is there twice.", changed(lambda r: add_raw(r, "INPUT0", "FP32", A))
    ),
    "inputs/twice-instead": Mistake(
        "An input is there twice, another not at all.",
        changed(lambda r: setattr(r.inputs[1], "name", "INPUT0")),
    ),
    "datatype/other": Mistake(
        "The datatype is another one of the same size.",
        changed(lambda r: setattr(r.inputs[0], "datatype", "INT32")),
    ),
    "datatype/unknown": Mistake(
        "The datatype is none of the protocol's.",
        changed(lambda r: setattr(r.inputs[0], "datatype", "FLOAT")),
    ),
    "datatype/lower-case": Mistake(
        "The datatype is in lower case.", changed(lambda r: setattr(r.inputs[0], "datatype", "fp32"))
    ),
    "datatype/none": Mistake(
        "There is no datatype.", changed(lambda r: setattr(r.inputs[0], "datatype", ""))
    ),
    "shape/rank": Mistake(
        "The tensor has an axis too many.",
        lambda: add_sub_request(A.reshape(1, 2, 2), B.reshape(1, 2, 2)),
        source=SHAPE,
    ),
    "shape/rank-short": Mistake(
        "The tensor has an axis too few.", lambda: add_sub_request(A.ravel(), B.ravel()), source=SHAPE
    ),
    "shape/length": Mistake(
        "An axis is shorter than the model's.", lambda: add_sub_request(A[:, :3], B[:, :3]), source=SHAPE
    ),
    "shape/swapped": Mistake(
        "The axes are exchanged; the elements are as many.",
        changed(lambda r: add_raw(r, "INPUT", "FP32", np.zeros((3, 2), "<f4")), lambda: request("transpose")),
        source=SHAPE,
    ),
    "shape/batch-too-large": Mistake(
        "There are more rows than max_batch_size.",
        lambda: add_sub_request(np.ones((9, 4), "<f4"), np.ones((9, 4), "<f4")),
        source="Triton, model configuration, max_batch_size",
    ),
    "shape/rows-disagree": Mistake(
        "The inputs have different numbers of rows.",
        lambda: add_sub_request(np.ones((2, 4), "<f4"), np.ones((3, 4), "<f4")),
        source="Triton, model configuration, max_batch_size",
    ),
    "shape/negative": Mistake("An axis is -1.", shaped(-1), source=SHAPE),
    "shape/most-negative": Mistake("An axis is the smallest int64.", shaped(-(2**63)), source=SHAPE),
    "shape/negative-pair": Mistake("Two negative axes whose product fits.", shaped(-2, -2), source=SHAPE),
    "shape/larger-than-data": Mistake("The shape has more elements than were sent.", shaped(5), source=SHAPE),
    "shape/smaller-than-data": Mistake(
        "The shape has fewer elements than were sent.", shaped(3), source=SHAPE
    ),
    "shape/empty-with-data": Mistake("The shape is [0] and there are elements.", shaped(0), source=SHAPE),
    "shape/huge": Mistake("An axis is the largest int64.", shaped(2**63 - 1), source=SHAPE),
    "shape/overflow-to-zero": Mistake(
        "The product of the axes is 0 modulo 2^64, and no bytes are sent.",
        shaped(2**32, 2**32, data=b""),
        source=SHAPE,
    ),
    "shape/overflow-bytes": Mistake(
        "The number of bytes is 16 modulo 2^64, as were sent.", shaped(2**62 + 4), source=SHAPE
    ),
    "shape/many-axes": Mistake(
        "The shape has ten thousand axes of length 1.",
        shaped(*([1] * 10_000), data=b"\0\0\0\0"),
        source=SHAPE,
    ),
    "raw/too-short": Mistake("The raw contents lack a byte.", shaped(4, data=X.tobytes()[:-1]), source=RAW),
    "raw/too-long": Mistake(
        "The raw contents have a byte too many.", shaped(4, data=X.tobytes() + b"\0"), source=RAW
    ),
    "raw/empty": Mistake("The raw contents are empty.", shaped(4, data=b""), source=RAW),
    "raw/one-missing": Mistake(
        "There are fewer raw contents than inputs.", changed(lambda r: r.raw_input_contents.pop()), source=RAW
    ),
    "raw/one-more": Mistake(
        "There are more raw contents than inputs.",
        changed(lambda r: r.raw_input_contents.append(b"1234")),
        source=RAW,
    ),
    "raw/and-typed": Mistake(
        "An input has raw and typed contents.",
        said_twice,
        source=RAW + ": contents must not be specified for any",
    ),
    "raw/beside-typed": Mistake(
        "One input has raw, the other typed contents.",
        raw_beside_typed,
        source=RAW + ": contents must not be specified for any",
    ),
    "raw/none-at-all": Mistake(
        "An input has no contents of either kind.",
        changed(lambda r: r.ClearField("raw_input_contents")),
        source=CONTENTS,
    ),
    "typed/too-few": Mistake(
        "The typed contents lack an element.", typed("FP32", "fp32_contents", [1.0], 2), source=CONTENTS
    ),
    "typed/too-many": Mistake(
        "The typed contents have an element too many.",
        typed("FP32", "fp32_contents", [1.0, 2.0, 3.0], 2),
        source=CONTENTS,
    ),
    "typed/other-field": Mistake(
        "The typed contents are in another datatype's field.",
        typed("FP32", "int_contents", [1, 2], 2),
        source=CONTENTS,
    ),
    "typed/int8-out-of-range": Mistake(
        "An element of INT8 is 300.",
        typed("INT8", "int_contents", [300], 1),
        source=CONTENTS,
        models=("identity_int8",),
    ),
    "typed/uint16-out-of-range": Mistake(
        "An element of UINT16 is 65536.",
        typed("UINT16", "uint_contents", [65536], 1),
        source=CONTENTS,
        models=("identity_uint16",),
    ),
    "bytes/prefix-too-large": Mistake(
        "An element's length leads past the end.",
        shaped(1, data=b"\xff\xff\xff\xffab", datatype="BYTES"),
        source=BYTES,
    ),
    "bytes/prefix-cut": Mistake(
        "The last length is cut off.", shaped(2, data=b"\1\0\0\0a\1\0", datatype="BYTES"), source=BYTES
    ),
    "bytes/trailing": Mistake(
        "There are bytes behind the last element.",
        shaped(1, data=b"\1\0\0\0abc", datatype="BYTES"),
        source=BYTES,
    ),
    "bytes/too-few": Mistake(
        "There are fewer elements than the shape says.",
        shaped(3, data=b"\1\0\0\0a", datatype="BYTES"),
        source=BYTES,
    ),
    "bytes/too-many": Mistake(
        "There are more elements than the shape says.",
        shaped(1, data=b"\1\0\0\0a" * 2, datatype="BYTES"),
        source=BYTES,
    ),
    "bytes/absurdly-many": Mistake(
        "The shape says 2^40 elements over five bytes.",
        shaped(2**40, data=b"\1\0\0\0a", datatype="BYTES"),
        source=BYTES,
    ),
    "bytes/typed-too-few": Mistake(
        "bytes_contents lack an element.", typed("BYTES", "bytes_contents", [b"a"], 2), source=CONTENTS
    ),
    "outputs/unknown": Mistake(
        "An output is asked for that the model does not have.",
        lambda: add_sub_request(outputs=["OUTPUT9"]),
        source=OIP + "InferRequestedOutputTensor.name",
    ),
    "outputs/unknown-too": Mistake(
        "An unknown output is asked for beside a known one.",
        lambda: add_sub_request(outputs=["OUTPUT0", "OUTPUT9"]),
        source=OIP + "InferRequestedOutputTensor.name",
    ),
    "outputs/no-name": Mistake(
        "An output without a name is asked for.",
        lambda: add_sub_request(outputs=[""]),
        source=OIP + "InferRequestedOutputTensor.name",
    ),
    "model/unknown": Mistake(
        "No model has this name.", changed(lambda r: setattr(r, "model_name", "no_such_model")), MISSING
    ),
    "model/no-name": Mistake(
        "The request names no model.", changed(lambda r: setattr(r, "model_name", "")), INVALID + MISSING
    ),
    "model/path": Mistake(
        "The model's name is a path.",
        changed(lambda r: setattr(r, "model_name", "../add_sub")),
        INVALID + MISSING,
    ),
    "model/nul": Mistake(
        "The model's name has a NUL in it.",
        changed(lambda r: setattr(r, "model_name", "add_sub\0")),
        INVALID + MISSING,
    ),
    "model/very-long": Mistake(
        "The model's name has a megabyte.",
        changed(lambda r: setattr(r, "model_name", "m" * 2**20)),
        INVALID + MISSING,
    ),
    "version/unknown": Mistake(
        "The model has no such version.", changed(lambda r: setattr(r, "model_version", "99")), MISSING
    ),
    "version/no-number": Mistake(
        "The version is no version.", changed(lambda r: setattr(r, "model_version", "x y")), INVALID + MISSING
    ),
    "version/path": Mistake(
        "The version is a path.", changed(lambda r: setattr(r, "model_version", "../1")), INVALID + MISSING
    ),
    "version/huge": Mistake(
        "The version is a number beyond int64.",
        changed(lambda r: setattr(r, "model_version", "9" * 30)),
        INVALID + MISSING,
    ),
}

PARAMETERS = [pytest.param(mistake, id=name) for name, mistake in MISTAKES.items()]


@pytest.mark.parametrize("mistake", PARAMETERS)
@case("mistake/{}", MUST)
def test_a_mistake_is_refused(target: Target, mistake: Mistake) -> None:
    """REQUIRED an error of ModelInfer, and none that means silence."""
    target.infer(mistake.make()).must_be_refused(never=SILENCE)


@pytest.mark.parametrize("mistake", PARAMETERS)
@case("mistake-code/{}", SHOULD)
def test_a_mistake_is_told_by_its_code(target: Target, mistake: Mistake) -> None:
    """REQUIRED the code that fits."""
    target.infer(mistake.make()).must_be(*mistake.codes)


@case("mistake/then-a-good-one", MUST)
def test_after_all_mistakes_the_server_works(target: Target) -> None:
    """After every mistake of this list the server answers as before.

    Source: none in the protocol.
    """
    for mistake in MISTAKES.values():
        target.infer(mistake.make())
    target.must_still_answer()
