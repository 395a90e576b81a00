# ruff: noqa: N818 -- an error is named by what happened, in the words of its status code
"""What can go wrong between a client and a server.

ClientError(FlyweightError)     one sentence with the target; `code` and `details` as the server sent them
├── InvalidRequest              a tensor, parameter or setting is wrong: change the request
├── NotFound                    no such model or variant
├── Refused                     the server's state does not allow it (FAILED_PRECONDITION, ABORTED, …)
├── Unauthenticated             the server wants a credential
├── PermissionDenied            the credential does not allow this
├── Overloaded                  the server sheds load, and still did after the retries
├── DeadlineExceeded            no answer within `timeout_seconds`
├── Unavailable                 nobody answers at this address, or the server is draining
├── Cancelled                   the call was cancelled
├── Unsupported                 the server does not implement this
├── ServerFault                 the server failed (INTERNAL, UNKNOWN, DATA_LOSS)
└── InvalidResponse             the answer cannot be understood

The code is a gRPC status code's name. Errors found before anything is sent have the code that a server would
have answered with, so one `except InvalidRequest` catches both.
"""

from typing import ClassVar

from flyweight.protos.errors import FlyweightError


class ClientError(FlyweightError):
    """A call that did not give what was asked for.

    Attributes:
        code: the name of the gRPC status code, "NOT_FOUND" for example.
        details: the server's own words; empty when it said nothing.
    """

    default_code: ClassVar[str] = "UNKNOWN"

    def __init__(self, sentence: str, *, code: str | None = None, details: str = "") -> None:
        super().__init__(sentence)
        self.code = code or self.default_code
        self.details = details


class InvalidRequest(ClientError):
    """A tensor, a parameter or a setting is wrong; sending it again will not help."""

    default_code = "INVALID_ARGUMENT"


class NotFound(ClientError):
    """The server has no such model or variant."""

    default_code = "NOT_FOUND"


class Refused(ClientError):
    """The request is right, but the state of the server does not allow it."""

    default_code = "FAILED_PRECONDITION"


class Unauthenticated(ClientError):
    """The server wants a credential, or does not know the one it got."""

    default_code = "UNAUTHENTICATED"


class PermissionDenied(ClientError):
    """The credential is known and does not allow this call."""

    default_code = "PERMISSION_DENIED"


class Overloaded(ClientError):
    """The server sheds load, and still did after the retries."""

    default_code = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(ClientError):
    """No answer came within the deadline."""

    default_code = "DEADLINE_EXCEEDED"


class Unavailable(ClientError):
    """Nobody answers at the address, or the server is about to stop."""

    default_code = "UNAVAILABLE"


class Cancelled(ClientError):
    """The call was cancelled before it was answered."""

    default_code = "CANCELLED"


class Unsupported(ClientError):
    """The server does not implement the call."""

    default_code = "UNIMPLEMENTED"


class ServerFault(ClientError):
    """The server failed in a way it did not expect; its log says more."""

    default_code = "INTERNAL"


class InvalidResponse(ClientError):
    """The answer cannot be understood: the server does not speak the protocol, or not all of it."""

    default_code = "INTERNAL"
