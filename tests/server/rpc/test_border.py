import logging

import pytest

from flyweight.protos.errors import FlyweightError, ManifestError, TensorError
from flyweight.server import errors
from flyweight.server.errors import (
    Code,
    QueueFull,
    RegionExists,
    ServerError,
    StartError,
    UnknownRegion,
    code_of,
)
from flyweight.server.rpc.border import answer
from flyweight.server.rpc.call import Call, Failure


def raising(error: Exception):
    def handler(_body: bytes, _call: Call) -> bytes:
        raise error

    return handler


def test_an_answer_passes_unchanged() -> None:
    assert answer(lambda body, _: body + b"!", b"hello", Call()) == b"hello!"


def test_an_expected_failure_becomes_its_status_and_sentence() -> None:
    failure = answer(raising(errors.UnknownModel("There is no model 'a'.")), b"", Call())
    assert failure == Failure(Code.NOT_FOUND, "There is no model 'a'.")


def test_a_full_queue_pushes_back_in_whole_milliseconds() -> None:
    failure = answer(raising(QueueFull("Full.", retry_after_seconds=0.25)), b"", Call())
    assert failure == Failure(Code.RESOURCE_EXHAUSTED, "Full.", (("grpc-retry-pushback-ms", "250"),))


@pytest.mark.parametrize("error", [ValueError("secret path /etc"), FlyweightError("no row in the table")])
def test_a_bug_is_logged_whole_and_goes_out_bare(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        failure = answer(raising(error), b"", Call())
    assert isinstance(failure, Failure)
    assert failure.code is Code.INTERNAL
    assert str(error) not in failure.sentence
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error
    identity = record.getMessage().split()[-1]
    assert failure.sentence == f"internal error; see the server's log (id {identity})"


def test_every_failure_of_a_request_has_a_status() -> None:
    """StartError never meets a request, and the root is abstract; all others are in the table."""
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ServerError)
    ]
    for kind in set(kinds) - {ServerError, StartError}:
        more = {QueueFull: (1.0,), UnknownRegion: ("mine",), RegionExists: ("mine",)}.get(kind, ())
        error = kind("sentence", *more)
        assert code_of(error) not in {None, Code.OK}


def test_the_contracts_failures_have_a_status_too() -> None:
    assert code_of(TensorError("x")) is Code.INVALID_ARGUMENT
    assert code_of(ManifestError("x")) is Code.FAILED_PRECONDITION


def test_what_nobody_expects_has_none() -> None:
    assert code_of(ValueError("x")) is None


def test_a_sentence_fits_into_the_trailers_of_a_call() -> None:
    """Of metadata, gRPC takes 8 KiB, percent-encoded; a status that is longer gets lost."""
    sentence = f"There is no model {'é' * 9000!r}; the models are a."
    failure = answer(raising(errors.UnknownModel(sentence)), b"", Call())
    assert isinstance(failure, Failure)
    assert len(failure.sentence.encode()) <= 2048
    assert failure.sentence.startswith("There is no model 'ééé")
    assert failure.sentence.endswith("ééé'; the models are a.")


def test_a_sentence_about_a_path_that_is_not_unicode_can_be_sent() -> None:
    failure = answer(raising(errors.LoadFailed("bad\udcff is gone.")), b"", Call())
    assert failure == Failure(Code.FAILED_PRECONDITION, "bad\\udcff is gone.")
