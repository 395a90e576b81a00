"""The border of the manager's threads: an unexpected error is logged whole and ends its own step only."""

import logging
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


def survive(what: str, step: Callable[[], Result], otherwise: Callable[[Exception], Result]) -> Result:
    """Return what `step` returns; log an error that nobody expected, and return `otherwise` of it."""
    try:
        return step()
    # The one broad except of the lifecycle: a thread that dies silently serves a stale repository for ever.
    except Exception as error:  # noqa: BLE001
        _log.exception("An unexpected error while %s; this is a bug in flyweight.", what)
        return otherwise(error)
