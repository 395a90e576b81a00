"""What Triton answers where we answer otherwise, for clients that check its status codes and words.

Our own codes tell apart what Triton calls UNAVAILABLE all alike (a full queue, a queue's timeout, a server
that stops), so that a client with a retry policy does not retry into an overload. `--compat triton` gives
that up.

Source: the answers of tritonserver 2.51 over gRPC, as observed. What is not in the table keeps our words.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final, NamedTuple

from flyweight.server.errors import (
    Code,
    Draining,
    LoadFailed,
    NotReady,
    QueueFull,
    RegionExists,
    ServerError,
    TimedOut,
    UnknownModel,
    UnknownRegion,
    UnknownVariant,
    WorkerDied,
)
from flyweight.server.rpc.call import Failure
from flyweight.server.rpc.messages import sendable


class _Answer(NamedTuple):
    code: Code
    sentence: str


def _of_model(error: ServerError) -> _Answer | None:
    if isinstance(error, UnknownModel) and error.model:
        return _Answer(Code.NOT_FOUND, f"Request for unknown model: '{error.model}' is not found")
    if isinstance(error, NotReady) and error.model:
        return _Answer(
            Code.NOT_FOUND, f"Request for unknown model: '{error.model}' has no available versions"
        )
    return None


def _of_variant(error: ServerError) -> _Answer | None:
    if not isinstance(error, UnknownVariant) or not error.model:
        return None
    if error.variant.isdecimal() and error.variant.isascii():
        return _Answer(
            Code.NOT_FOUND,
            f"Request for unknown model: '{error.model}' version {error.variant} is not found",
        )
    return _Answer(
        Code.INVALID_ARGUMENT,
        f"failed to get model version from specified version string '{error.variant}' (details: stol), "
        "version should be an integral value > 0",
    )


def _of_region(error: ServerError) -> _Answer | None:
    if isinstance(error, UnknownRegion):
        return _Answer(Code.NOT_FOUND, f"Unable to find shared memory region: '{error.region}'")
    if isinstance(error, RegionExists):
        return _Answer(Code.ALREADY_EXISTS, f"shared memory region '{error.region}' already in manager")
    return None


def _always(code: Code, sentence: str) -> Callable[[ServerError], _Answer]:
    return lambda _error: _Answer(code, sentence)


# The first row that fits counts, so a subclass stands above its parent.
_TABLE: Final[tuple[tuple[type[ServerError], Callable[[ServerError], _Answer | None]], ...]] = (
    (UnknownModel, _of_model),
    (UnknownVariant, _of_variant),
    (WorkerDied, lambda _error: None),
    (NotReady, _of_model),
    (
        Draining,
        _always(Code.UNAVAILABLE, "GRPC server is shutting down and has stopped accepting new requests."),
    ),
    (QueueFull, _always(Code.UNAVAILABLE, "[request id: <id_unknown>] Exceeds maximum queue size")),
    # Not the call's deadline, which Triton leaves to its clients: told UNAVAILABLE, they would ask again.
    (TimedOut, _always(Code.UNAVAILABLE, "Request timeout expired")),
    (LoadFailed, lambda error: _Answer(Code.INVALID_ARGUMENT, f"load failed: {error}")),
    (UnknownRegion, _of_region),
    (RegionExists, _of_region),
)


def in_tritons_words(failure: Failure) -> Failure:
    """Return the status that Triton would give where ours is `failure`."""
    for kind, answer_of in _TABLE:
        if isinstance(failure.cause, kind):
            answer = answer_of(failure.cause)
            if answer is not None:
                return replace(failure, code=answer.code, sentence=sendable(answer.sentence))
            return failure
    return failure
