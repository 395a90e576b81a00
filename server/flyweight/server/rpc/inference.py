"""ModelInfer: one request, from its bytes to the response's bytes.

message -> admission -> traffic chooses -> lease -> arrays, checked -> turn to run -> run -> message
"""

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from flyweight.protos.errors import FlyweightError
from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest, ModelInferResponse
from flyweight.protos.tensors import decode_tensors, encode_outputs
from flyweight.server.errors import Code, DeadlineExceeded, Draining, QueueFull, code_of
from flyweight.server.lifecycle.table import Held, LoadedVariant, RoutingTable
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.messages import parse
from flyweight.server.rpc.models import Models
from flyweight.server.rpc.parameters import refuse_unsupported, sticky_key_of
from flyweight.server.rpc.records import NOBODY, Answerer, Record, Recorder, Rejection
from flyweight.server.runtime.seam import Answer
from flyweight.server.traffic import Choice, choose, pin

_REJECTIONS: Final = {
    QueueFull: Rejection.QUEUE_FULL,
    DeadlineExceeded: Rejection.DEADLINE,
    Draining: Rejection.DRAINING,
}


class Picked(NamedTuple):
    """The traffic plan's choice for one request, and whom to count the request for."""

    choice: Choice
    answerer: Answerer


class Inference:
    """Answers ModelInfer. Thread-safe; owns nothing but what it is given.

    `uniform` gives random numbers in [0, 1), and `clock` monotonic seconds.
    """

    def __init__(
        self,
        models: Models,
        gate: Gate,
        recorder: Recorder,
        uniform: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._gate = gate
        self._recorder = recorder
        self._uniform = uniform
        self._clock = clock

    def model_infer(self, body: bytes, call: Call) -> bytes:
        """Answer a ModelInferRequest.

        Raises:
            FlyweightError: whatever kept the request from being answered.
        """
        with self._recording() as record:
            request = parse(ModelInferRequest, body)
            record.answerer = self._known_model(request.model_name)
            with self._gate.accepted(), self._models.lease(self._picker(request, call)) as held:
                record.answerer = held.choice.answerer
                with self._in_flight(record.answerer):
                    return self._answer(request, call, held, record)

    def _answer(self, request: ModelInferRequest, call: Call, held: Held[Picked], record: Record) -> bytes:
        """Run the leased variant on the request's tensors, which are checked before they wait."""
        refuse_unsupported(request)
        signature = held.variant.signature
        # The variant's outputs may be fewer than the session's: config.pbtxt can leave some out.
        wanted = [output.name for output in request.outputs] or [spec.name for spec in signature.outputs]
        inputs = decode_tensors(request.inputs, request.raw_input_contents)
        record.rows = signature.check(inputs, wanted)
        decoded = self._clock()
        record.decode_seconds = decoded - record.started
        with self._gate.running(call):
            turn = self._clock()
            answer = held.runtime.run(inputs, wanted, call.deadline_monotonic)
        record.queue_seconds = turn - decoded + answer.queue_seconds
        record.run_seconds = answer.run_seconds
        encoding = self._clock()
        body = _response(request, held, answer).SerializeToString()
        record.encode_seconds = self._clock() - encoding
        return body

    def _picker(
        self, request: ModelInferRequest, call: Call
    ) -> Callable[[RoutingTable], tuple[LoadedVariant, Picked]]:
        uniform = self._uniform()

        def pick(table: RoutingTable) -> tuple[LoadedVariant, Picked]:
            model = table.model(request.model_name)
            if request.model_version:
                choice = pin(request.model_version)
            else:
                choice = choose(model.plan, sticky_key_of(request, call, model.plan), uniform)
            variant = model.variant(choice.variant)
            role = model.role_of(variant.name).value
            return variant, Picked(choice, Answerer(model.name, variant.name, role))

        return pick

    def _known_model(self, name: str) -> Answerer:
        """Return whom to count a request for before a variant is chosen: nobody, for an invented name."""
        table = self._models.table
        return Answerer(name) if name in table.models or name in table.waiting else NOBODY

    @contextmanager
    def _recording(self) -> Iterator[Record]:
        record = Record(started=self._clock())
        try:
            yield record
        except BaseException as error:
            expected = code_of(error) if isinstance(error, FlyweightError) else None
            record.code = Code.INTERNAL if expected is None else expected
            record.rejection = _REJECTIONS.get(type(error))
            raise
        finally:
            record.total_seconds = self._clock() - record.started
            self._recorder.record(record)

    @contextmanager
    def _in_flight(self, answerer: Answerer) -> Iterator[None]:
        self._recorder.begin(answerer)
        try:
            yield
        finally:
            self._recorder.end(answerer)


def _response(request: ModelInferRequest, held: Held[Picked], answer: Answer) -> ModelInferResponse:
    variant, choice = held.variant, held.choice.choice
    response = ModelInferResponse(model_name=variant.model, model_version=variant.name, id=request.id)
    # What a caller needs to compare variants by itself; the names are part of the wire contract.
    response.parameters["flyweight_variant"].string_param = variant.name
    response.parameters["flyweight_role"].string_param = choice.role.value
    response.parameters["flyweight_reason"].string_param = choice.reason.value
    encode_outputs(response, answer.outputs)
    return response
