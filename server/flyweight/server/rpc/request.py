"""One request on its way through the server.

message -> admission -> traffic chooses -> lease -> arrays, checked -> queue ... run -> message
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, TypeAlias

from flyweight.protos.errors import FlyweightError
from flyweight.protos.tensors import Buffer
from flyweight.server.batching.job import GONE, TOO_LATE, Done, Job, Outcome
from flyweight.server.caching import CacheKey, key_of
from flyweight.server.errors import Cancelled, DeadlineExceeded, Draining, NotReady, QueueFull, TimedOut
from flyweight.server.lifecycle.table import Held, LoadedVariant, RoutingTable
from flyweight.server.rpc.access import client_key
from flyweight.server.rpc.answers import head_of_answer, id_field
from flyweight.server.rpc.border import attempt, failure_of
from flyweight.server.rpc.call import CLOCK_SLACK_SECONDS, Body, Call, Failure, Reply
from flyweight.server.rpc.choosing import choose_variant, fall_back, go_on_with
from flyweight.server.rpc.inside import Inside
from flyweight.server.rpc.large import read_request
from flyweight.server.rpc.layouts import Checked, Layout
from flyweight.server.rpc.parameters import read_options, sticky_key_of
from flyweight.server.rpc.reading import read_inputs
from flyweight.server.rpc.records import NOBODY, Answerer, Record, Rejection
from flyweight.server.rpc.turns import Turn
from flyweight.server.rpc.writing import wanted_outputs, write_outputs
from flyweight.server.runtime.seam import Array
from flyweight.server.sequences import SequenceStep, holder_of
from flyweight.server.traffic import Choice

_REJECTIONS: Final = {
    QueueFull: Rejection.QUEUE_FULL,
    DeadlineExceeded: Rejection.DEADLINE,
    TimedOut: Rejection.DEADLINE,
    Draining: Rejection.DRAINING,
}

# Turns the bytes of a response, in parts, into those of whatever the RPC answers with.
Encode: TypeAlias = Callable[[list[bytes]], bytes]


def plain(parts: list[bytes]) -> bytes:
    """Encode a response as ModelInfer answers it."""
    return b"".join(parts)


class Picked(NamedTuple):
    """Who answers one request, whom to count it for, and whether another may answer if this one cannot."""

    choice: Choice
    answerer: Answerer
    may_fall_back: bool = False


# As many as there are variants and reasons to choose them, for they are the same again and again.
@lru_cache(maxsize=4096)
def _picked(choice: Choice, model: str, role: str, *, is_bound: bool) -> Picked:
    return Picked(choice, Answerer(model, choice.variant, role), may_fall_back=not is_bound)


class Request:
    """One request; whoever has it at the moment is the only one who touches it. Answered exactly once."""

    __slots__ = (
        "_body",
        "_call",
        "_client",
        "_decoded",
        "_encode",
        "_held",
        "_inside",
        "_is_accepted",
        "_job",
        "_key",
        "_layout",
        "_message",
        "_model_name",
        "_options",
        "_raw",
        "_record",
        "_reply",
        "_turn",
        "_wanted",
    )

    _raw: Sequence[Buffer]

    def __init__(self, inside: Inside, call: Call, reply: Reply, encode: Encode) -> None:
        self._inside = inside
        self._call = call
        self._reply = reply
        self._encode = encode
        self._record = Record(started=inside.clock())
        self._is_accepted = False
        self._client: str | None = None
        self._held: Held[Picked] | None = None
        self._job: Job | None = None
        self._turn: Turn | None = None
        self._key: CacheKey | None = None
        self._layout: Layout | None = None
        self._raw = ()
        self._model_name = ""

    def begin(self, body: Body) -> None:
        """Bring the request as far as the queue; whoever runs it goes on by `settle`.

        Raises:
            FlyweightError: whatever keeps it from being answered; `fail` is to follow.
        """
        record, call, inside = self._record, self._call, self._inside
        self._body = body
        known = inside.layouts.find(body)
        if known is None:
            message, self._raw = read_request(body)
            request_id = message.id
        else:
            self._layout, request_id = known
            message = self._layout.message
        self._message, self._model_name = message, message.model_name
        record.request_id = call.request_id = request_id
        self._options = read_options(message) if self._layout is None else self._layout.options
        self._be_accepted()
        self._enqueue(self._pick)

    def _be_accepted(self) -> None:
        inside, call = self._inside, self._call
        remaining = self._remaining_seconds()
        if remaining is not None and remaining <= 0:
            raise DeadlineExceeded(TOO_LATE)
        inside.gate.enter()
        self._is_accepted = True
        if inside.clients.is_limited:
            client = client_key(call.caller, call.peer)
            inside.clients.enter(client)
            self._client = client

    def _pick(self, table: RoutingTable) -> tuple[LoadedVariant, Picked]:
        message, inside = self._message, self._inside
        model = table.model(message.model_name)
        sequence_id = self._options.sequence_id
        holder = holder_of(model.variants, sequence_id) if sequence_id and not message.model_version else None
        if holder is not None:
            choice = go_on_with(model, holder)
        else:
            key = sticky_key_of(message, self._call, model.plan)
            choice = choose_variant(model, message.model_version, key, inside.uniform(), inside.gate.share)
        variant = model.variants.get(choice.variant) or model.variant(choice.variant)
        # Whoever asked for a variant, or has its state there, is not served by another.
        is_bound = bool(message.model_version) or holder is not None
        return variant, _picked(choice, model.name, model.role_of(variant.name).value, is_bound=is_bound)

    def _enqueue(self, pick: Callable[[RoutingTable], tuple[LoadedVariant, Picked]]) -> None:
        inside, call = self._inside, self._call
        held = self._held = inside.models.acquire(pick)
        variant = held.variant
        self._record.answerer = self._call.answerer = held.choice.answerer
        inside.tallies.begin(held.choice.answerer)
        job = self._job = self._make_job(variant)
        if variant.is_cached and inside.cache.is_on and self._answer_from_cache(variant, job):
            return
        if variant.sequences is not None:
            self._wait_for_turn(variant, job)
        else:
            inside.scheduler.submit(variant.lane, job)
        call.on_end(self._abandon)
        if not call.is_active():
            self._abandon()

    def _make_job(self, variant: LoadedVariant) -> Job:
        """Read the tensors, and check them before they wait."""
        record, inside, layout, call = self._record, self._inside, self._layout, self._call
        checked = None if layout is None else layout.checked_by(variant.instance)
        if checked is None:
            wanted = wanted_outputs(self._message, inside.regions)
            inputs = self._inputs()
            # The variant's outputs may be fewer than the session's: config.pbtxt can leave some out.
            self._wanted = tuple(wanted or [spec.name for spec in variant.signature.outputs])
            record.rows = variant.signature.check(inputs, self._wanted)
        else:
            inputs = self._inputs()
            record.rows, self._wanted = checked.rows, checked.wanted
        decoded = self._decoded = inside.clock()
        record.decode_seconds = decoded - record.started
        job = Job(
            inputs,
            record.rows,
            self._wanted,
            decoded,
            self.settle,
            is_active=call.is_active,
            deadline_seconds=call.deadline_monotonic,
            priority=self._options.priority,
            timeout_seconds=self._options.timeout_seconds,
        )
        if checked is not None:
            job.be_of(checked.kind)
        elif layout is not None:
            layout.note(variant.instance, Checked(record.rows, self._wanted, job.kind))
        else:
            inside.layouts.learn(self._body, self._message, self._options, inputs)
        return job

    def _inputs(self) -> dict[str, Array]:
        if self._layout is not None:
            return self._layout.inputs_of(self._body)
        return read_inputs(self._message, self._raw, self._inside.regions, self._inside.limits)

    def _answer_from_cache(self, variant: LoadedVariant, job: Job) -> bool:
        """Answer with what was answered before, if it was; tell whether it was."""
        self._key = key_of(variant.instance, job.inputs, job.outputs)
        known = self._inside.cache.get(self._key)
        self._record.cache_hit = known is not None
        if known is None:
            return False
        self._key = None
        self.settle(Done(known, self._decoded, 0.0, 0, 0, leads_run=False))
        return True

    # --- sequences ---

    def _wait_for_turn(self, variant: LoadedVariant, job: Job) -> None:
        options, sequences = self._options, variant.sequences
        assert sequences is not None
        turn = Turn(self._take_turn)
        ticket = sequences.admit(
            options.sequence_id,
            start=options.sequence_start,
            end=options.sequence_end,
            rows=job.rows,
            when_turn=turn.come,
        )
        self._turn = turn
        turn.hold(ticket)

    def _take_turn(self, step: SequenceStep) -> None:
        """Wait for a run, now that every earlier request of the sequence is settled."""
        job, held = self._job, self._held
        assert job is not None
        assert held is not None
        job.inputs = {**job.inputs, **step.inputs}
        job.be_of(None)
        job.outputs = tuple(dict.fromkeys((*job.outputs, *step.outputs)))
        try:
            self._inside.scheduler.submit(held.variant.lane, job)
        except FlyweightError as error:
            self.settle(error)

    def _end_turn(self, outputs: Mapping[str, Array] | None) -> None:
        turn, self._turn = self._turn, None
        if turn is None or turn.ticket is None:
            return
        if outputs is None:
            turn.ticket.fail()
        else:
            turn.ticket.complete(outputs)

    # --- the end ---

    def settle(self, outcome: Outcome) -> None:
        """Answer with what became of the job."""
        if isinstance(outcome, FlyweightError):
            if isinstance(outcome, NotReady) and self._fall_back():
                return
            self.fail(failure_of(outcome))
            return
        result = attempt(lambda: self._write(outcome))
        if isinstance(result, Failure):
            self.fail(result)
            return
        self._end_turn(outcome.outputs)
        self._close()
        self._reply(result)

    def fail(self, failure: Failure) -> None:
        """Answer with a status that says why there is no answer."""
        if self._record.answerer is NOBODY:
            # Nobody was chosen.
            table = self._inside.models.table
            self._record.answerer = self._call.answerer = _known_model(table, self._model_name)
        self._record.code = failure.code
        self._record.rejection = _REJECTIONS.get(type(failure.cause))
        self._end_turn(None)
        self._close()
        _forget_frames(failure.cause)
        self._reply(self._inside.wording(failure))

    def _write(self, done: Done) -> bytes:
        record, held = self._record, self._held
        assert held is not None
        record.queue_seconds = done.started_seconds - self._decoded
        record.run_seconds = done.run_seconds
        record.batch_rows, record.batch_requests = done.batch_rows, done.batch_requests
        record.leads_run = done.leads_run
        began = self._inside.clock()
        outputs = done.outputs
        if self._turn is not None:
            outputs = {name: outputs[name] for name in self._wanted}
        if self._key is not None:
            self._inside.cache.put(self._key, outputs)
        body = self._encode(self._parts(held, outputs))
        record.encode_seconds = self._inside.clock() - began
        return body

    def _parts(self, held: Held[Picked], outputs: Mapping[str, Array]) -> list[bytes]:
        """Return the bytes of the response, in parts."""
        variant, choice, inside = held.variant, held.choice.choice, self._inside
        is_final = self._options.empty_final_response
        request_id = id_field(self._record.request_id)
        if self._layout is not None or not any(output.parameters for output in self._message.outputs):
            return [*inside.answers.write(variant, choice, outputs, is_final=is_final), request_id]
        response = head_of_answer(variant, choice, is_final=is_final)
        write_outputs(
            response,
            self._message,
            outputs,
            variant.labels,
            inside.regions,
            has_batch_axis=variant.signature.max_batch_rows > 0,
        )
        return [response.SerializeToString(), request_id]

    def _fall_back(self) -> bool:
        """Let another variant answer for one whose process died, once; tell whether one does."""
        held, table = self._held, self._inside.models.table
        if held is None or not held.choice.may_fall_back:
            return False
        model = table.models.get(self._message.model_name)
        fallback = fall_back(model, held.variant.name) if model is not None else None
        if fallback is None:
            return False
        # Neither its place in a sequence nor its key in the cache is the other's.
        self._end_turn(None)
        self._key = None
        self._held = None
        self._inside.tallies.end(held.choice.answerer)
        held.release()

        def pick(table: RoutingTable) -> tuple[LoadedVariant, Picked]:
            model = table.model(self._message.model_name)
            variant = model.variant(fallback.variant)
            return variant, _picked(fallback, model.name, model.role_of(variant.name).value, is_bound=True)

        failure = attempt(lambda: self._enqueue(pick))
        if failure is not None:
            self.fail(failure)
        return True

    def _abandon(self) -> None:
        """Note that the caller is gone, or has its answer; what still waits need not be run."""
        job, held, turn = self._job, self._held, self._turn
        if job is None or held is None:
            return
        is_waiting = turn is not None and turn.ticket is not None and turn.ticket.leave()
        if is_waiting:
            self._turn = None
        elif not self._inside.scheduler.discard(held.variant.lane, job):
            return
        remaining = self._remaining_seconds()
        if remaining is not None and remaining < CLOCK_SLACK_SECONDS:
            self.settle(DeadlineExceeded(TOO_LATE))
        else:
            self.settle(Cancelled(GONE))

    def _remaining_seconds(self) -> float | None:
        deadline = self._call.deadline_monotonic
        return None if deadline is None else deadline - self._inside.clock()

    def _close(self) -> None:
        """Give back whatever the request holds, and record it."""
        inside, record, held = self._inside, self._record, self._held
        record.total_seconds = inside.clock() - record.started
        inside.tallies.record(record, None if held is None else held.choice.answerer)
        if inside.tracer.is_on:
            inside.tracer.record(record)
        # The job knows this request; a circle of both would wait for the collector.
        self._job = None
        if held is not None:
            held.release()
        if self._client is not None:
            inside.clients.leave(self._client)
        if self._is_accepted:
            inside.gate.leave()


def _forget_frames(error: BaseException | None) -> None:
    """Drop the tracebacks of an expected failure, which nobody reads.

    They hold the frames it passed, and those the request with its bytes and the failure itself: a circle that
    would wait for the collector, which looks at how many objects there are, and not at how large they are.
    """
    while error is not None:
        error.__traceback__ = None
        error = error.__cause__ or error.__context__


def _known_model(table: RoutingTable, name: str) -> Answerer:
    """Return whom to count a request for before a variant is chosen: nobody, for an invented name."""
    return Answerer(name) if name in table.models or name in table.waiting else NOBODY
