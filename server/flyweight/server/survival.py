"""The border of the server's threads: an unexpected error is logged whole and ends its own step only."""

import logging
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def survive(what: str, step: Callable[[], Result], otherwise: Callable[[Exception], Result]) -> Result:
    """Return what `step` returns; log an error that nobody expected, and return `otherwise` of it."""
    try:
        return step()
    # One of two broad excepts, the other being of the handlers: a thread that died in silence would leave a
    # stale repository, or requests that nobody answers.
    except Exception as error:  # noqa: BLE001
        _log.exception("An unexpected error while %s; this is a bug in flyweight.", what)
        return otherwise(error)
