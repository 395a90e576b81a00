"""The border of the server: every failure of a handler becomes a status here, and nowhere else."""

import logging
import uuid
from collections.abc import Callable
from typing import Final, TypeVar

from flyweight.protos.errors import FlyweightError
from flyweight.server.errors import Code, QueueFull, code_of
from flyweight.server.rpc.call import Call, Failure, Handler
from flyweight.server.rpc.messages import sendable

logger = logging.getLogger(__name__)

Result = TypeVar("Result")

# Clients with a retry policy wait this long instead of their own back-off (gRFC A6, "Pushback").
PUSHBACK_KEY: Final = "grpc-retry-pushback-ms"


def answer(handler: Handler, body: bytes, call: Call) -> bytes | Failure:
    """Let `handler` answer; return the response's bytes, or the status that says why there is none."""
    return attempt(lambda: handler(body, call))


def attempt(step: Callable[[], Result]) -> Result | Failure:
    """Return what a step of a handler returns, or the status that says why it could not be done."""
    try:
        return step()
    except FlyweightError as error:
        return failure_of(error)
    # Whatever else is raised is a bug of ours: the caller learns nothing of our insides, the log learns all.
    except Exception as error:  # noqa: BLE001
        return _unexpected(error)


def failure_of(error: FlyweightError) -> Failure:
    """Return the status of an expected failure."""
    code = code_of(error)
    if code is None:
        return _unexpected(error)
    if isinstance(error, QueueFull):
        milliseconds = str(max(1, round(error.retry_after_seconds * 1000)))
        return Failure(code, sendable(str(error)), ((PUSHBACK_KEY, milliseconds),), cause=error)
    return Failure(code, sendable(str(error)), cause=error)


def _unexpected(error: Exception) -> Failure:
    identity = uuid.uuid4().hex[:12]
    logger.error("internal error %s", identity, exc_info=error)
    return Failure(Code.INTERNAL, f"internal error; see the server's log (id {identity})")
