"""The server under test: its address, and one way to ask it anything."""

import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import grpc

from flyweight.protos.inference import grpc_service_pb2 as messages
from oip.cases import Code
from oip.encoding import Array, outputs_of
from oip.requests import A, B, add_sub_request

SERVICE: Final = "inference.GRPCInferenceService"
# Nothing here takes a tenth of this on a free machine; it is how long a silent server is waited for.
PATIENCE_SECONDS: Final = 10.0
# Starting a server, its models and what holds them, once.
START_SECONDS: Final = 90.0
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A channel of its own for each Target: channels with equal options share their connections otherwise.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call: the status, and the response when it is OK."""

    code: grpc.StatusCode
    details: str = ""
    response: Any = None

    def __str__(self) -> str:
        """Return what a failure's sentence needs."""
        return self.code.name + (f" ({self.details[:160]!r})" if self.details else "")

    def must_be_ok(self) -> Any:
        """Return the response; fail with the status where there is none."""
        assert self.code is Code.OK, f"REQUIRED OK; answered {self}"
        return self.response

    def must_be(self, *codes: grpc.StatusCode) -> None:
        """Fail unless the status is one of `codes`."""
        names = " or ".join(code.name for code in codes)
        assert self.code in codes, f"REQUIRED {names}; answered {self}"

    def must_be_refused(self, never: Iterable[grpc.StatusCode] = ()) -> None:
        """Fail unless there is an error, and it is none of `never`."""
        assert self.code is not Code.OK, "REQUIRED an error; answered OK"
        assert self.code not in never, f"REQUIRED an error that is an answer; answered {self}"

    def tensors(self) -> dict[str, tuple[str, Array]]:
        """Return the outputs of a ModelInferResponse as name -> (datatype, array)."""
        return outputs_of(self.must_be_ok())


@dataclass
class Target:
    """A server by its address. One channel is kept for the whole run, `fresh` gives another one."""

    address: str
    # grpc ships no types, and the stubs there are want serializers, which bytes need not.
    channel: Any = field(init=False)

    def __post_init__(self) -> None:
        """Open the channel; it connects at the first call."""
        self.channel = grpc.insecure_channel(self.address, options=_OPTIONS)

    def close(self) -> None:
        """Close the channel."""
        self.channel.close()

    def move(self, address: str) -> None:
        """Talk to another server from now on: the one that was started after the last one died."""
        self.channel.close()
        self.address = address
        self.__post_init__()

    def is_alive(self) -> bool:
        """Tell whether the server answers at all, over a new connection."""
        with self.fresh() as other:
            return other.call("ServerLive", messages.ServerLiveRequest(), wait_for_ready=True).code is Code.OK

    def call(self, method: str, request: Any, *, timeout: float = PATIENCE_SECONDS, **options: Any) -> Answer:
        """Call a unary method of the service by its name; `request` is a message, or any bytes."""
        body = request if isinstance(request, bytes) else request.SerializeToString()
        ask = self.channel.unary_unary(f"/{SERVICE}/{method}")
        try:
            data = ask(body, timeout=timeout, **options)
        except grpc.RpcError as error:
            return failure(error)
        return Answer(Code.OK, response=_response_class(method).FromString(data))

    def infer(self, request: Any, **options: Any) -> Answer:
        """Call ModelInfer."""
        return self.call("ModelInfer", request, **options)

    def stream(self, requests: Iterable[Any], *, timeout: float = PATIENCE_SECONDS) -> Any:
        """Open a ModelStreamInfer over `requests`; iterate over what is returned, or cancel it."""
        return self.channel.stream_stream(
            f"/{SERVICE}/ModelStreamInfer",
            request_serializer=messages.ModelInferRequest.SerializeToString,
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )(iter(requests), timeout=timeout)

    def stream_all(self, requests: Sequence[Any]) -> list[Any]:
        """Return every message that comes back for `requests`."""
        try:
            return list(self.stream(requests))
        except grpc.RpcError as error:
            raise AssertionError(
                f"REQUIRED a stream that ends with OK; it ended with {failure(error)}"
            ) from None

    def is_ready(self, model: str, version: str = "") -> bool:
        """Tell whether a model answers ModelReady with true; an error counts as no."""
        answer = self.call("ModelReady", messages.ModelReadyRequest(name=model, version=version))
        return answer.code is Code.OK and bool(answer.response.ready)

    @contextmanager
    def fresh(self) -> Iterator["Target"]:
        """Give the same server over a connection of its own."""
        with closing(Target(self.address)) as other:
            yield other

    def connect(self) -> socket.socket:
        """Return a bare connection."""
        host, _, port = self.address.rpartition(":")
        made = socket.create_connection((host.strip("[]"), int(port)), PATIENCE_SECONDS)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made

    def must_still_answer(self) -> None:
        """Fail unless a client that comes now, and one that was there before, get the right sums."""
        with self.fresh() as other:
            for client in (other, self):
                tensors = client.infer(add_sub_request(), wait_for_ready=True).tensors()
                assert (tensors["OUTPUT0"][1] == A + B).all(), "REQUIRED the right sum afterwards"

    @property
    def is_local(self) -> bool:
        """Tell whether the server shares this machine, and so its shared memory."""
        return self.address.rpartition(":")[0] in {"127.0.0.1", "localhost", "[::1]"}


def failure(error: Any) -> Answer:
    """Return a failed call's status as an answer."""
    return Answer(error.code(), error.details() or "")


def eventually(holds: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Ask `holds` again and again until it is true; fail with `what` when patience ends."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"REQUIRED within {seconds:.0f} s: {what}"
        time.sleep(0.02)


def _response_class(method: str) -> Any:
    name = (
        messages.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name[method].output_type.name
    )
    return getattr(messages, name)
