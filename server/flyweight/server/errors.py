# ruff: noqa: N818 -- a failure is named by what happened, in the words of the status it becomes
"""Every failure that the server expects, and the one table that turns failures into gRPC status codes.

ServerError
├── StartError              the server cannot start as it was asked to
├── InvalidRequest          the request itself is wrong, whoever answers it
├── UnknownModel            no model of this name is served
├── UnknownVariant          the model has no variant of this name
├── Unsupported             the protocol has this, flyweight has it not
├── Unauthenticated         nobody knows who the caller is, and this is not for everybody
├── NotAllowed              this server was told not to do this, or not for this caller
├── NotReady                the model is known, but no variant of it can answer now
│   └── WorkerDied          the process that held the variant died while it ran the request
├── Draining                the server is stopping and takes no new work
├── QueueFull               more work is waiting than the server was told to hold
├── DeadlineExceeded        the caller's deadline passed before the work began
│   └── TimedOut            the request waited longer than its `timeout` or its queue's allows
├── Cancelled               the caller went away before the work began
├── LoadFailed              a variant could not be loaded, warmed up, or did not repeat its golden outputs
├── RunFailed               the runtime failed on a request that looked right
├── TrafficPlanError        a traffic.yaml cannot be followed
└── Conflict                somebody else changed it first

What is not in the table is a bug: it is logged whole at the border and goes out as a bare INTERNAL.
"""

from enum import IntEnum
from typing import Final

from flyweight.protos.errors import FlyweightError, RepositoryError, TensorError

# Long enough for a place to become free on a busy server, or for one of the caller's own requests to end, and
# short enough that a caller hardly notices.
_RETRY_AFTER_SECONDS: Final = 0.1


class Code(IntEnum):
    """The canonical gRPC status codes (grpc/grpc, doc/statuscodes.md), known without grpc."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class ServerError(FlyweightError):
    """The root of what the server expects to go wrong."""


class StartError(ServerError):
    """The server cannot start as it was asked to: a port in use, no repository, an unreadable certificate."""


class InvalidRequest(ServerError):
    """The request is wrong, and would be wrong again: a tensor's name, type or shape, an unknown output."""


class UnknownModel(ServerError):
    """No model of this name, `model`, is in the repository."""

    def __init__(self, sentence: str, model: str = "") -> None:
        super().__init__(sentence)
        self.model = model


class UnknownVariant(ServerError):
    """The model, `model`, is there, but has no variant of this name, `variant`."""

    def __init__(self, sentence: str, model: str = "", variant: str = "") -> None:
        super().__init__(sentence)
        self.model = model
        self.variant = variant


class Unsupported(ServerError):
    """The protocol declares this, and flyweight does not do it."""


class Unauthenticated(ServerError):
    """The caller gave no credential that this server knows, and asked for what is not for everybody."""


class NotAllowed(ServerError):
    """This server was started without the permission to do this, or the caller lacks the role for it."""


class NotSetUp(ServerError):
    """This server was started without what this needs; its operator can change that."""


class UnknownRegion(ServerError):
    """No region of shared memory is registered under this name, `region`."""

    def __init__(self, sentence: str, region: str) -> None:
        super().__init__(sentence)
        self.region = region


class RegionExists(ServerError):
    """A region of shared memory is registered under this name, `region`, already."""

    def __init__(self, sentence: str, region: str) -> None:
        super().__init__(sentence)
        self.region = region


class LimitReached(ServerError):
    """The server keeps as many of something as it will; giving one back makes room."""


class NotReady(ServerError):
    """The model, `model`, or variant is known, but cannot answer at the moment; trying again may help.

    `model` is empty when it is the server as a whole that cannot.
    """

    def __init__(self, sentence: str, model: str = "") -> None:
        super().__init__(sentence)
        self.model = model


class WorkerDied(NotReady):
    """The process that held the session died during the run; nobody knows how far the run came."""


class Draining(ServerError):
    """The server is stopping: it finishes what it has accepted and takes nothing new."""


class QueueFull(ServerError):
    """The server holds as much work as it was told to.

    `retry_after_seconds` is how long a caller should leave it alone (gRPC's retry push-back).
    """

    def __init__(self, sentence: str, retry_after_seconds: float = _RETRY_AFTER_SECONDS) -> None:
        super().__init__(sentence)
        self.retry_after_seconds = retry_after_seconds


class DeadlineExceeded(ServerError):
    """The caller's deadline passed while its request waited; it was dropped before it cost anything."""


class TimedOut(DeadlineExceeded):
    """The request waited longer than its parameter `timeout` or its queue's policy allows."""


class Cancelled(ServerError):
    """The caller cancelled, or its connection broke, while its request waited."""


class LoadFailed(ServerError):
    """A variant could not be brought up; whatever was served before is still served."""


class RunFailed(ServerError):
    """The runtime failed on inputs that match the model's signature."""


class TrafficPlanError(ServerError):
    """A traffic.yaml is malformed, or asks for something that is not there."""


class Conflict(ServerError):
    """Somebody else changed what was to be changed; whoever looks again can decide again."""


# The one table. The first row that fits counts, so a subclass stands above its parent.
_TABLE: Final[tuple[tuple[type[FlyweightError], Code], ...]] = (
    (InvalidRequest, Code.INVALID_ARGUMENT),
    (TensorError, Code.INVALID_ARGUMENT),
    (UnknownModel, Code.NOT_FOUND),
    (UnknownVariant, Code.NOT_FOUND),
    (Unsupported, Code.UNIMPLEMENTED),
    (Unauthenticated, Code.UNAUTHENTICATED),
    (NotAllowed, Code.PERMISSION_DENIED),
    (NotSetUp, Code.FAILED_PRECONDITION),
    (UnknownRegion, Code.NOT_FOUND),
    (RegionExists, Code.ALREADY_EXISTS),
    (LimitReached, Code.RESOURCE_EXHAUSTED),
    (NotReady, Code.UNAVAILABLE),
    (Draining, Code.UNAVAILABLE),
    # Not UNAVAILABLE: clients retry that one at once, into the overload.
    (QueueFull, Code.RESOURCE_EXHAUSTED),
    (DeadlineExceeded, Code.DEADLINE_EXCEEDED),
    (Cancelled, Code.CANCELLED),
    (LoadFailed, Code.FAILED_PRECONDITION),
    (TrafficPlanError, Code.FAILED_PRECONDITION),
    (Conflict, Code.ABORTED),
    (RepositoryError, Code.FAILED_PRECONDITION),
    (RunFailed, Code.INTERNAL),
)


def code_of(error: BaseException) -> Code | None:
    """Return the gRPC status code of an expected failure; None for anything else, which is a bug."""
    for kind, code in _TABLE:
        if isinstance(error, kind):
            return code
    return None
