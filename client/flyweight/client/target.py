"""What both clients share around a call: its arguments, and what its failure is called. No I/O."""

import re
from typing import Final, TypedDict, TypeVar

import grpc
import grpc.aio

from flyweight.client import channel
from flyweight.client.calls import Call, CallOptions
from flyweight.client.errors import (
    Cancelled,
    ClientError,
    DeadlineExceeded,
    InvalidRequest,
    InvalidResponse,
    NotFound,
    Overloaded,
    PermissionDenied,
    Refused,
    ServerFault,
    Unauthenticated,
    Unavailable,
    Unsupported,
)
from flyweight.client.results import ModelInfo
from flyweight.client.settings import Settings
from flyweight.protos.errors import TensorError

T = TypeVar("T")

# "failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: REASON", maybe with ": OK".
_LAST_ERROR: Final = re.compile(r"last error: [A-Z_]+: \S+: (.*?)(: OK)?$", re.DOTALL)

# What gRPC's core makes of an answer that is not HTTP/2: the fourth byte of it, as a number.
_FIRST_FRAME: Final = re.compile(r"first frame, got frame type (\d+)")

# The one table from status codes to errors; what is not in it is ServerFault.
_ERRORS: Final[dict[str, type[ClientError]]] = {
    "INVALID_ARGUMENT": InvalidRequest,
    "OUT_OF_RANGE": InvalidRequest,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": Refused,
    "ABORTED": Refused,
    "ALREADY_EXISTS": Refused,
    "UNAUTHENTICATED": Unauthenticated,
    "PERMISSION_DENIED": PermissionDenied,
    "RESOURCE_EXHAUSTED": Overloaded,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "UNAVAILABLE": Unavailable,
    "CANCELLED": Cancelled,
    "UNIMPLEMENTED": Unsupported,
}


class Arguments(TypedDict):
    """What goes into gRPC's call besides the request."""

    timeout: float | None
    metadata: tuple[tuple[str, str], ...]


class Target:
    """A server's address, and how it is called. Immutable but for what it learned about models' inputs.

    Raises:
        InvalidRequest: the address or a setting cannot be used.
    """

    def __init__(self, address: str, settings: Settings | None) -> None:
        self.address = channel.check_address(address)
        self.settings = settings or Settings()
        self.options = channel.options(self.settings)
        self.compression = channel.COMPRESSIONS[self.settings.compression]
        self.credentials = None if self.settings.tls is None else channel.credentials(self.settings.tls)
        self._metadata = tuple(channel.metadata(self.address, self.settings))
        # Grows by one short entry per model asked with a bare array.
        self._only_inputs: dict[str, str] = {}

    def arguments(self, call: Call[T], call_options: CallOptions) -> Arguments:
        """Return the deadline and the metadata of one call.

        Raises:
            TypeError: an option is none of this call's; a misspelt deadline must not go unnoticed.
        """
        unknown = call_options.keys() - call.takes
        if unknown:
            raise TypeError(
                f"{call.method} takes no {', '.join(unknown)}; it takes {', '.join(sorted(call.takes))}"
            )
        own = tuple((key.lower(), value) for key, value in call_options.get("metadata", {}).items())
        timeout = call_options.get("timeout_seconds", self.settings.timeout_seconds)
        return {"timeout": timeout, "metadata": self._metadata + own}

    def finish(self, call: Call[T], response: object) -> T:
        """Return a call's result.

        Raises:
            InvalidResponse: the response contradicts itself.
        """
        try:
            return call.parse(response)
        except TensorError as error:
            raise InvalidResponse(f"the answer of {self._name(call)} cannot be read: {error}") from error

    def recover(self, call: Call[T], error: grpc.RpcError, arguments: Arguments) -> T:
        """Return what a failed call means, where it means something.

        Raises:
            ClientError: the call failed, and that is all there is to say.
        """
        # Both sync and asyncio errors are calls as well, which gRPC's types do not tell.
        assert isinstance(error, grpc.Call | grpc.aio.AioRpcError)
        code, details = error.code().name, (error.details() or "").strip()
        sentence = self._sentence(call, code, details, arguments["timeout"])
        kind = _ERRORS.get(code, ServerFault)
        return call.recover(kind(sentence, code=code, details=details))

    def _sentence(self, call: Call[T], code: str, details: str, timeout_seconds: float | None) -> str:
        name = self._name(call)
        if code == "DEADLINE_EXCEEDED" and timeout_seconds is not None:
            return f"{name} gave no answer to {call.method} within {timeout_seconds:g} s ({code})."
        if code == "UNAVAILABLE" and details.startswith("failed to connect"):
            return self._not_connected(details)
        return f"{name} did not answer {call.method}: {details.rstrip('.') or 'no reason given'} ({code})."

    def _not_connected(self, details: str) -> str:
        match = _LAST_ERROR.search(details)
        reason = (match[1] if match else details).rstrip(".")
        if "refused" in reason:
            return f"nobody answers at {self.address} ({reason}); start the server, or give its address."
        frame = _FIRST_FRAME.search(reason)
        # HTTP/2 knows no frame of such a type; the letters of HTTP/1 are.
        if frame is not None and chr(int(frame[1])).isalpha():
            return (
                f"{self.address} speaks HTTP/1 and no gRPC, as a server's metrics port does; give its gRPC "
                "port, 8001 unless it was told another."
            )
        advice = (
            "this client uses no TLS: if the server does, give --tls or --ca, in Python TlsSettings."
            if self.credentials is None
            else "this client uses TLS: check that the server does so too, and that each trusts the other's "
            "certificate."
        )
        return f"no connection to {self.address} could be made ({reason}); {advice}"

    def _name(self, call: Call[T]) -> str:
        return f"{call.subject or 'the server'} at {self.address}"

    def only_input(self, model: str) -> str | None:
        """Return the name of a model's only input, where it is known already."""
        return self._only_inputs.get(model)

    def learn_only_input(self, model: str, info: ModelInfo) -> str:
        """Return and remember the name of the only input of `model`, which `info` describes.

        Raises:
            InvalidRequest: it has several, or none.
        """
        if len(info.inputs) != 1:
            names = ", ".join(tensor.name for tensor in info.inputs) or "none"
            raise InvalidRequest(
                f"model {model!r} has {len(info.inputs)} inputs ({names}), so an array alone does not say "
                "which it is; give a mapping from input names to arrays."
            )
        name = info.inputs[0].name
        self._only_inputs[model] = name
        return name

    def forget_only_input(self, model: str) -> None:
        """Forget it: the server refused a request, and a model may be replaced by one with other inputs."""
        self._only_inputs.pop(model, None)
