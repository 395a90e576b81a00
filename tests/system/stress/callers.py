"""Callers: threads that ask a server without a pause, by calls or on a stream, and check every answer."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Self

import grpc
import numpy as np

from flyweight.protos.inference import grpc_service_pb2 as pb
from tests.system.stress.ledger import Ledger, Seen
from tests.system.stress.models import WIDTH

UNARY = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
# A request that takes longer hangs; it is then seen as DEADLINE_EXCEEDED, which no ledger allows by default.
TIMEOUT_SECONDS = 30.0
# Values whose products with small whole numbers are exact in FP32.
_MOST_VALUE = 1 << 16


@dataclass(frozen=True)
class Group:
    """Callers of one kind, and which statuses they must and may see.

    `scales` is the right factor of each variant's answers; an answer by one that is not named is a fault.
    `behave` replaces "ask and wait": it gets the caller, and returns after one round of requests.
    """

    name: str
    count: int = 2
    model: str = "tiny"
    variant: str = ""
    scales: Mapping[str, float] = field(default_factory=dict)
    required: frozenset[str] = frozenset({"OK"})
    allowed: frozenset[str] = frozenset()
    behave: "Callable[[Caller], None] | None" = None
    timeout_seconds: float = TIMEOUT_SECONDS
    priority: int = 0
    options: tuple[tuple[str, object], ...] = ()
    metadata: tuple[tuple[str, str], ...] = ()


def body_of(
    value: float, model: str, variant: str = "", *, rows: int = 1, priority: int = 0, request_id: str = ""
) -> bytes:
    """Return a ModelInferRequest whose every element is `value`."""
    return request_of(
        value, model, variant, rows=rows, priority=priority, request_id=request_id
    ).SerializeToString()


def request_of(
    value: float, model: str, variant: str = "", *, rows: int = 1, priority: int = 0, request_id: str = ""
) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name=model, model_version=variant, id=request_id)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, WIDTH])
    request.raw_input_contents.append(np.full((rows, WIDTH), value, np.float32).tobytes())
    if priority:
        request.parameters["priority"].uint64_param = priority
    return request


def seen_of(response: pb.ModelInferResponse, value: float, scales: Mapping[str, float]) -> Seen:
    """Check an answer against the right one."""
    variant = response.model_version
    reason = response.parameters["flyweight_reason"].string_param
    got = np.frombuffer(response.raw_output_contents[0], np.float32)
    scale = scales.get(variant)
    fault = ""
    if scale is None:
        fault = f"{variant!r} answered, which should not be there"
    elif not (got == np.float32(value * scale)).all():
        fault = f"{variant} gave {got[0]} for {value}, not {value * scale}"
    return Seen("OK", variant, reason, fault)


class Caller:
    """One thread with one connection. Owns both, from `start` to `stop`."""

    def __init__(self, target: str, group: Group, ledger: Ledger, seed: int) -> None:
        self.group = group
        self.ledger = ledger
        self.random = Random(seed)
        self.stopping = threading.Event()
        self.channel = grpc.insecure_channel(
            target, options=[("grpc.use_local_subchannel_pool", 1), *group.options]
        )
        self._unary = self.channel.unary_unary(UNARY)
        self._stream = self.channel.stream_stream(STREAM)
        self.thread = threading.Thread(target=self._live, name=f"{group.name}-{seed}", daemon=True)

    def value(self) -> float:
        return float(self.random.randrange(1, _MOST_VALUE))

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """End after the request that is under way."""
        self.stopping.set()

    def close(self) -> None:
        self.channel.close()

    def _live(self) -> None:
        behave = self.group.behave or ask
        while not self.stopping.is_set():
            behave(self)

    def begin(self, value: float) -> grpc.Future:
        """Send a request, and return its future."""
        self.ledger.send()
        group = self.group
        body = body_of(value, group.model, group.variant, priority=group.priority)
        return self._unary.future(body, timeout=group.timeout_seconds, metadata=group.metadata)

    def end(self, future: grpc.Future, value: float, began: float) -> Seen:
        """Wait for an answer, note it and return it."""
        try:
            response = pb.ModelInferResponse.FromString(future.result())
        except grpc.RpcError as error:
            seen = Seen(error.code().name, fault=_push_back_fault(error), details=error.details() or "")
        except grpc.FutureCancelledError:
            seen = Seen("CANCELLED")
        else:
            right = seen_of(response, value, self.group.scales)
            seen = Seen("OK", right.variant, right.reason, right.fault, seconds=time.monotonic() - began)
        self.ledger.note(seen)
        return seen

    def stream(self, values: Sequence[float]) -> None:
        """Ask for all values on one stream, and note each answer."""
        group = self.group

        def messages() -> Iterator[bytes]:
            for place, value in enumerate(values):
                yield body_of(value, group.model, group.variant, request_id=str(place))

        self.ledger.send(len(values))
        heard = 0
        try:
            for message in self._stream(messages(), timeout=group.timeout_seconds):
                answer = pb.ModelStreamInferResponse.FromString(message)
                if answer.error_message:
                    self.ledger.note(Seen("STREAM_ERROR", details=answer.error_message))
                elif answer.infer_response.id != str(heard):
                    self.ledger.note(Seen("OK", fault=f"answer {heard} is {answer.infer_response.id}"))
                else:
                    self.ledger.note(seen_of(answer.infer_response, values[heard], group.scales))
                heard += 1
        except grpc.RpcError as error:
            for _ in values[heard:]:
                self.ledger.note(Seen(error.code().name, details=error.details() or ""))
            return
        for _ in values[heard:]:
            self.ledger.note(Seen("LOST", fault="a stream ended well with fewer answers than requests"))


def _push_back_fault(error: grpc.RpcError) -> str:
    """Return what is wrong with a refusal: one that says "too much" says when to come again."""
    if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return ""
    told = dict(error.trailing_metadata() or ())
    return "" if "grpc-retry-pushback-ms" in told else f"no push-back in {told}: {error.details()}"


def ask(caller: Caller) -> None:
    """Ask and wait."""
    value, began = caller.value(), time.monotonic()
    caller.end(caller.begin(value), value, began)


def ask_gently(caller: Caller) -> None:
    """Ask and wait; let the server breathe after a refusal, as a client with a retry policy does."""
    value, began = caller.value(), time.monotonic()
    if caller.end(caller.begin(value), value, began).code != "OK":
        caller.stopping.wait(0.02)


def ask_many(count: int) -> Callable[[Caller], None]:
    """Return a behaviour that has `count` requests under way at one time, and waits for all of them."""

    def behave(caller: Caller) -> None:
        under_way = []
        for _ in range(count):
            value = caller.value()
            under_way.append((caller.begin(value), value, time.monotonic()))
        for future, value, began in under_way:
            caller.end(future, value, began)

    return behave


def ask_and_cancel(count: int) -> Callable[[Caller], None]:
    """Return a behaviour that sends requests together and cancels each, or not, at a random moment."""

    def behave(caller: Caller) -> None:
        under_way = [(caller.begin(value := caller.value()), value, time.monotonic()) for _ in range(count)]
        caller.random.shuffle(under_way)
        for future, _, _ in under_way:
            if caller.random.random() < 0.7:
                if caller.random.random() < 0.3:
                    caller.stopping.wait(caller.random.random() / 500)
                future.cancel()
        for future, value, began in under_way:
            caller.end(future, value, began)

    return behave


def stream_of(count: int) -> Callable[[Caller], None]:
    """Return a behaviour that asks for `count` values on one stream."""

    def behave(caller: Caller) -> None:
        caller.stream([caller.value() for _ in range(count)])

    return behave


def hurried(least_seconds: float, most_seconds: float, count: int) -> Callable[[Caller], None]:
    """Return a behaviour that sends `count` requests together, with deadlines drawn from a range."""

    def behave(caller: Caller) -> None:
        under_way = []
        for _ in range(count):
            value = caller.value()
            body = body_of(value, caller.group.model, caller.group.variant)
            timeout = caller.random.uniform(least_seconds, most_seconds)
            caller.ledger.send()
            began = time.monotonic()
            under_way.append((caller.channel.unary_unary(UNARY).future(body, timeout=timeout), value, began))
        for future, value, began in under_way:
            caller.end(future, value, began)

    return behave


class Crowd:
    """Groups of callers at work, with a ledger for each. A context manager that leaves none behind."""

    def __init__(self, target: str, groups: Sequence[Group], seed: int = 0) -> None:
        self.ledgers = {
            group.name: Ledger(group.name, group.required, group.allowed | group.required) for group in groups
        }
        self.callers = [
            Caller(target, group, self.ledgers[group.name], seed * 1000 + number)
            for group in groups
            for number in range(group.count)
        ]

    def __enter__(self) -> Self:
        for caller in self.callers:
            caller.start()
        return self

    def stop(self) -> None:
        """Have every caller end; one that does not is a request that hangs."""
        for caller in self.callers:
            caller.stop()
        for caller in self.callers:
            if caller.thread.ident is not None:
                caller.thread.join(2 * TIMEOUT_SECONDS)
        hanging = [caller.thread.name for caller in self.callers if caller.thread.is_alive()]
        assert not hanging, f"requests of {hanging} hang past their deadline"

    def check(self) -> None:
        complaints = [text for ledger in self.ledgers.values() for text in ledger.complaints()]
        assert not complaints, "\n".join(complaints)

    def __exit__(self, *_: object) -> None:
        for caller in self.callers:
            caller.stop()
        for caller in self.callers:
            with suppress(RuntimeError):
                caller.thread.join(TIMEOUT_SECONDS)
            caller.close()
