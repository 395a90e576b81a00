"""A ModelInferRequest: read, checked, run by a model that returns what it gets, and written.

The first byte says whether the rest is a request as it came, or decisions of which one is made.
"""

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any, Final, TypeVar

import numpy as np

from flyweight.protos.inference.grpc_service_pb2 import (
    InferParameter,
    ModelInferRequest,
    ModelInferResponse,
)
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.tensors import Array, decode_tensors, encode_inputs
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.caching import ResponseCache
from flyweight.server.lifecycle.lease import Leases
from flyweight.server.lifecycle.table import Held, LoadedVariant, RoutingTable, ServedModel, acquire_from
from flyweight.server.repository.serving import Merging, QueuePolicy, ServingPolicy
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Call, Failure
from flyweight.server.rpc.inference import Inference
from flyweight.server.rpc.inside import Inside
from flyweight.server.rpc.reading import DEFAULT_LIMITS
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.regions import Regions
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.runtime.seam import Signature, TensorSpec
from flyweight.server.security.clients import ClientLimits
from flyweight.server.sequences import Sequences
from flyweight.server.sequences.spec import SequenceSpec, StateSpec
from flyweight.server.traffic import Plan, Reason
from tests.fuzz.choices import Choices
from tests.fuzz.scratch import scratch_folder

Pick = TypeVar("Pick")

PATIENCE_SECONDS: Final = 30
# What opens a request as it came.
RAW: Final = b"\xff"
REGION, REGION_BYTES = "region", 256

_FREE: Final = -1
_TYPES: Final = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)
_FIELDS: Final = (
    *("bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents"),
    *("fp32_contents", "fp64_contents", "bytes_contents"),
)
_LENGTHS: Final = (1, 0, 2, 3, 4, 8, -1, -2, 1 << 31, 1 << 32, 1 << 62, (1 << 63) - 1, -(1 << 63), 255, 7, 16)
_RESERVED: Final = (
    *("priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "binary_data"),
    *("binary_data_output", "triton_enable_empty_final_response", "flyweight_key", "classification"),
    *("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size", "other"),
)


def _specs(shape: tuple[int, ...], types: tuple[str, ...], prefix: str) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(f"{prefix}{kind.lower()}", kind, shape, optional=True) for kind in types)


def _same(inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return each input as the output of its name; one that is not sent as an empty one."""
    found = {"y" + name[1:]: array for name, array in inputs.items()}
    return {f"y{kind.lower()}": np.zeros((0,), np.float32) for kind in _TYPES} | found


_ONE: Final = Signature((TensorSpec("x", "FP32", (_FREE, 4)),), (TensorSpec("y", "FP32", (_FREE, 4)),), 8)
_ALL: Final = Signature(_specs((_FREE, _FREE), _TYPES, "x"), _specs((_FREE, _FREE), _TYPES, "y"))
_SCALAR: Final = Signature((TensorSpec("x", "INT64", ()),), (TensorSpec("y", "INT64", ()),))
_TEXT: Final = Signature((TensorSpec("x", "BYTES", (_FREE, 2)),), (TensorSpec("y", "BYTES", (_FREE, 2)),), 8)
_STATE: Final = SequenceSpec(
    controls=(),
    states=(StateSpec("s", "t", np.zeros((1, 2), np.float32)),),
    idle_seconds=60.0,
    most=4,
)
_MERGED: Final = ServingPolicy(merging=Merging.MEASURED, max_rows=8)
_LEVELS: Final = ServingPolicy(
    merging=Merging.NEVER,
    max_rows=8,
    priority_levels=3,
    default_priority=2,
    queues={1: QueuePolicy(allow_timeout_override=False), 3: QueuePolicy(max_waiting=1)},
)
MODELS: Final = ("one", "all", "scalar", "text", "levels", "cached", "state", "unknown")


def _runtime(model: str) -> FakeRuntime:
    if model == "all":
        return FakeRuntime(signature=_ALL, function=_same)
    if model == "state":
        return FakeRuntime(signature=_ONE, function=lambda given: {"y": given["x"], "t": given["s"] + 1})
    signature = {"scalar": _SCALAR, "text": _TEXT}.get(model, _ONE)
    return FakeRuntime(signature=signature, function=lambda given: {"y": given["x"]})


def _served(model: str) -> ServedModel:
    runtime = _runtime(model)
    config = ModelConfig(name=model, max_batch_size=runtime.signature.max_batch_rows)
    config.response_cache.enable = model == "cached"
    variant = LoadedVariant(
        model=model,
        name="1",
        signature=runtime.signature,
        config=config,
        manifest=None,
        runtime=runtime,
        leases=Leases(model),
        serving=_LEVELS if model == "levels" else _MERGED,
        labels={"y": ("zero", "", "two")},
        sequences=Sequences(_STATE, model) if model == "state" else None,
    )
    plan = Plan("1", (("1", 1.0),), origin=Reason.ONLY)
    return ServedModel(model, MappingProxyType({"1": variant}), plan)


class _Models:
    """Stands in for the manager."""

    def __init__(self) -> None:
        served = {model: _served(model) for model in MODELS[:-1]}
        self.table = RoutingTable(MappingProxyType(served), 1, frozenset({"waiting"}))

    def acquire(self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Pick]]) -> Held[Pick]:
        return acquire_from(lambda: self.table, pick)


class _Notebook(Tallies):
    """Remembers what is held, and what was told."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[Answerer] = []
        self.records: list[Record] = []

    def begin(self, answerer: Answerer) -> None:
        super().begin(answerer)
        self.held.append(answerer)

    def end(self, answerer: Answerer) -> None:
        super().end(answerer)
        self.held.remove(answerer)

    def record(self, record: Record, ended: Answerer | None = None) -> None:
        super().record(record, ended)
        if ended is not None:
            self.held.remove(ended)
        self.records.append(record)


@cache
def _regions() -> Regions:
    folder = scratch_folder()
    path = folder / REGION
    path.write_bytes(bytes(REGION_BYTES))
    regions = Regions(folder=folder)
    regions.register(REGION, REGION, 0, REGION_BYTES)
    return regions


@cache
def _scheduler() -> Scheduler:
    return Scheduler(1)


def ask(body: bytes) -> bytes | Failure:
    """Have one request answered by a new server, and see that it is answered once and nothing is kept."""
    models, notebook, gate = _Models(), _Notebook(), Gate(4)
    gate.open()
    inside = Inside(
        models,  # type: ignore[arg-type] -- it has what inference asks for
        gate,
        _scheduler(),
        notebook,
        ClientLimits(2),
        regions=_regions(),
        limits=replace(DEFAULT_LIMITS, tensor_bytes=1 << 20),
        cache=ResponseCache(1 << 20),
    )
    answers: list[bytes | Failure] = []
    answered = threading.Event()

    def reply(answer: bytes | Failure) -> None:
        answers.append(answer)
        answered.set()

    Inference(inside).model_infer(body, Call(), reply)
    _scheduler().advance()
    assert answered.wait(PATIENCE_SECONDS), "the request is never answered"
    (answer,) = answers
    assert (gate.accepted_count, notebook.held, len(notebook.records)) == (0, [], 1)
    for served in models.table.models.values():
        assert served.variants["1"].leases.held == 0
    return answer


def check(data: bytes) -> None:
    """Have what the bytes stand for answered; a status without an expected failure is a bug."""
    body = data[1:] if data[:1] >= RAW else request_of(Choices(data[1:])).SerializeToString()
    answer = ask(body)
    if isinstance(answer, Failure):
        assert answer.cause is not None, answer.sentence
        assert answer.sentence
        return
    response = ModelInferResponse.FromString(answer)
    elsewhere = any("shared_memory_region" in output.parameters for output in response.outputs)
    assert len(response.raw_output_contents) == len(response.outputs)
    if not elsewhere:
        decode_tensors(response.outputs, response.raw_output_contents)


# --- a request that is made of decisions ---


def request_of(choices: Choices) -> ModelInferRequest:
    """Return a request: mostly of names and types that the models know, with lengths that often lie."""
    request = ModelInferRequest(
        model_name=choices.one_of((*MODELS, "waiting")), model_version=choices.one_of(("", "1", "2"))
    )
    if choices.flag():
        request.id = choices.text()
    _fill_parameters(request.parameters, choices)
    are_raw = choices.flag()
    for _ in range(choices.number(4)):
        _add_input(request, choices, is_raw=are_raw != (choices.number(15) == 15))
    for _ in range(choices.number(3)):
        output = request.outputs.add(
            name=choices.one_of(("y", *(f"y{kind.lower()}" for kind in _TYPES), "t"))
        )
        _fill_parameters(output.parameters, choices)
    return request


def _add_input(request: ModelInferRequest, choices: Choices, *, is_raw: bool) -> None:
    kind = choices.one_of((*_TYPES, "FP8", ""))
    given = request.inputs.add(
        name=choices.one_of(("x", f"x{kind.lower()}", "s", choices.text(4))),
        datatype=kind,
        shape=[choices.one_of(_LENGTHS) for _ in range(choices.number(4))],
    )
    _fill_parameters(given.parameters, choices)
    if is_raw:
        request.raw_input_contents.append(choices.bytes(choices.number(80)))
        return
    field = choices.one_of(_FIELDS)
    for _ in range(choices.number(9)):
        getattr(given.contents, field).append(_element(field, choices))


def _element(field: str, choices: Choices) -> Any:
    if field == "bool_contents":
        return choices.flag()
    if field == "bytes_contents":
        return choices.bytes(choices.number(9))
    if field.startswith("fp"):
        return np.frombuffer(choices.bytes(4).ljust(4, b"\0"), np.float32)[0]
    value = choices.whole()
    if field == "int_contents":
        return (value & 0xFFFFFFFF) - (1 << 31)
    if field == "uint_contents":
        return value & 0xFFFFFFFF
    return value if field == "int64_contents" else value & ((1 << 64) - 1)


def _fill_parameters(parameters: Any, choices: Choices) -> None:
    for _ in range(choices.number(4)):
        name = choices.one_of((*_RESERVED, ""))
        parameter: InferParameter = parameters[name]
        kind = choices.number(6)
        if kind == 0:
            parameter.int64_param = choices.one_of((0, 1, 2, 64, REGION_BYTES, choices.whole()))
        elif kind == 1:
            parameter.bool_param = choices.flag()
        elif kind == 2:
            parameter.string_param = choices.one_of((REGION, "seq", "", choices.text()))
        elif kind == 3:
            parameter.uint64_param = choices.one_of((0, 1, 16, (1 << 64) - 1, choices.number(65535)))
        elif kind == 4:
            parameter.double_param = choices.whole() / 7
        # 5 and 6 leave it without a value.


# --- where to begin ---


def seeds() -> list[bytes]:
    """Return good requests, of which mutations are made."""
    found = [bytes(64), bytes(range(256)), bytes(range(255, 0, -1))]
    arrays: list[tuple[str, dict[str, Array]]] = [
        ("one", {"x": np.ones((2, 4), np.float32)}),
        ("cached", {"x": np.ones((1, 4), np.float32)}),
        ("scalar", {"x": np.array(3, np.int64)}),
        ("text", {"x": np.array([[b"a", b""], [b"\xff", b"long"]], object)}),
        ("all", {"xint8": np.ones((2, 3), np.int8), "xfp16": np.ones((1, 1), np.float16)}),
        ("all", {"xbool": np.array([[True, False]]), "xuint64": np.ones((2, 2), np.uint64)}),
        ("state", {"x": np.ones((1, 4), np.float32)}),
        ("levels", {"x": np.ones((8, 4), np.float32)}),
    ]
    for model, inputs in arrays:
        request = ModelInferRequest(model_name=model, id="q")
        encode_inputs(request, inputs)
        if model == "state":
            request.parameters["sequence_id"].string_param = "a"
            request.parameters["sequence_start"].bool_param = True
        elif model == "levels":
            request.parameters["priority"].uint64_param = 1
            request.parameters["timeout"].int64_param = 1_000_000
        elif model == "one":
            request.outputs.add(name="y").parameters["classification"].int64_param = 2
        found.append(RAW + request.SerializeToString())
    return [*found, *(RAW + request.SerializeToString() for request in (_typed(), _shared()))]


def _typed() -> ModelInferRequest:
    request = ModelInferRequest(model_name="all")
    given = request.inputs.add(name="xint32", datatype="INT32", shape=[1, 3])
    given.contents.int_contents.extend([1, -2, 3])
    given = request.inputs.add(name="xbytes", datatype="BYTES", shape=[1, 1])
    given.contents.bytes_contents.append(b"word")
    return request


def _shared() -> ModelInferRequest:
    request = ModelInferRequest(model_name="one")
    given = request.inputs.add(name="x", datatype="FP32", shape=[1, 4])
    output = request.outputs.add(name="y")
    for parameters, offset in ((given.parameters, 0), (output.parameters, 64)):
        parameters["shared_memory_region"].string_param = REGION
        parameters["shared_memory_offset"].int64_param = offset
        parameters["shared_memory_byte_size"].int64_param = 16
    return request
