"""What Triton answers, word for word, as tritonserver 2.51 was seen to."""

import pytest

from flyweight.protos.errors import FlyweightError, TensorError
from flyweight.server.errors import (
    Cancelled,
    Code,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    LoadFailed,
    NotReady,
    QueueFull,
    RegionExists,
    RunFailed,
    TimedOut,
    UnknownModel,
    UnknownRegion,
    UnknownVariant,
    WorkerDied,
)
from flyweight.server.rpc.border import failure_of
from flyweight.server.rpc.call import Failure
from flyweight.server.rpc.compat import in_tritons_words

VERSION = (
    "failed to get model version from specified version string 'int8' (details: stol), version should be an "
    "integral value > 0"
)


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (UnknownModel("Ours.", "x"), Code.NOT_FOUND, "Request for unknown model: 'x' is not found"),
        (
            UnknownVariant("Ours.", "m", "7"),
            Code.NOT_FOUND,
            "Request for unknown model: 'm' version 7 is not found",
        ),
        (UnknownVariant("Ours.", "m", "int8"), Code.INVALID_ARGUMENT, VERSION),
        (
            NotReady("Ours.", "m"),
            Code.NOT_FOUND,
            "Request for unknown model: 'm' has no available versions",
        ),
        (
            Draining("Ours."),
            Code.UNAVAILABLE,
            "GRPC server is shutting down and has stopped accepting new requests.",
        ),
        (QueueFull("Ours.", 1), Code.UNAVAILABLE, "[request id: <id_unknown>] Exceeds maximum queue size"),
        (TimedOut("Ours."), Code.UNAVAILABLE, "Request timeout expired"),
        (LoadFailed("Ours."), Code.INVALID_ARGUMENT, "load failed: Ours."),
        (UnknownRegion("Ours.", "r"), Code.NOT_FOUND, "Unable to find shared memory region: 'r'"),
        (RegionExists("Ours.", "r"), Code.ALREADY_EXISTS, "shared memory region 'r' already in manager"),
    ],
)
def test_the_codes_and_words_are_tritons(error: FlyweightError, code: Code, sentence: str) -> None:
    answer = in_tritons_words(failure_of(error))
    assert (answer.code, answer.sentence) == (code, sentence)


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest("The input 'x' is FP64."),
        TensorError("Tensor 'x' comes twice."),
        Cancelled("Gone."),
        DeadlineExceeded("Too late."),
        RunFailed("It failed."),
        WorkerDied("It died."),
        # Not known which model: our own words say more than half of Triton's.
        UnknownModel("There is no such model."),
        UnknownVariant("There is no such variant."),
        NotReady("The server is loading."),
    ],
)
def test_what_is_not_in_the_table_keeps_our_words(error: FlyweightError) -> None:
    ours = failure_of(error)
    assert in_tritons_words(ours) == ours


def test_the_push_back_stays() -> None:
    error = QueueFull("Full.", 0.25)
    assert in_tritons_words(failure_of(error)).trailing_metadata == failure_of(error).trailing_metadata
    assert failure_of(error).trailing_metadata


def test_a_failure_without_a_cause_keeps_our_words() -> None:
    unexplained = Failure(Code.INTERNAL, "Ours.")
    assert in_tritons_words(unexplained) == unexplained
