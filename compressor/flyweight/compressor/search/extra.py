"""The extra `search`: imported where it is used, with a sentence for those who have not installed it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from flyweight.compressor.errors import CompressorError


class SearchError(CompressorError):
    """A study cannot be opened or gone on with, or a search came to nothing."""


def optuna_module() -> Any:  # a module whose types exist only where it is installed
    """Return the module optuna.

    Raises:
        SearchError: it is not installed.
    """
    try:
        return import_module("optuna")
    except ImportError as error:
        raise SearchError(
            "A search needs Optuna, which is not installed; install flyweight[search]."
        ) from error


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Keep Optuna's log lines and its warnings of experimental features to themselves."""
    optuna = optuna_module()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
