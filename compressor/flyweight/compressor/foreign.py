"""The one border to code that may raise anything: the user's module, and the tools that trace it."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from flyweight.compressor.errors import CompressorError
from flyweight.compressor.messages import in_one_line

Result = TypeVar("Result")


def run_foreign(call: Callable[[], Result], failure: Callable[[str], CompressorError]) -> Result:
    """Return what `call` returns.

    Args:
        call: runs code that is not ours.
        failure: makes the error for the reader out of one line that says what went wrong.

    Raises:
        CompressorError: made by `failure`, with the original exception as its cause.
    """
    try:
        return call()
    except CompressorError:
        raise
    # The code is the user's or a tracer's: any exception is possible, and all mean the same to us.
    except Exception as error:
        raise failure(in_one_line(error)) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and log lines of tracing tools to themselves: they speak of the tools' internals."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
