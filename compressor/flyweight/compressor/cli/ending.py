"""How `flyweight compress` ends before its time: promptly, and saying what is left of the work."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from flyweight.compressor.records import RECORD_FILE, record_folder
from flyweight.compressor.stopping import leave_at_exit, prompt_stop

INTERRUPTED: Final = 130
STOPPED: Final = (
    "Stopped; what was found until then is published and kept, and the same command goes on from there."
)
_STOPPED_EARLY: Final = (
    "Stopped before anything was published; what was finished is kept, and the same command goes on from "
    "there."
)
# Some file systems keep times in whole seconds, or two.
_CLOCK_SECONDS: Final = 2.0


@contextmanager
def stopped_in_time(given: dict[str, Any]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block within two seconds, and say what is left of the work."""
    started, told = time.time(), list[str]()

    def tell(sentence: str = "") -> None:
        if told:
            return
        told.append(sentence or (STOPPED if _recorded_since(given, started) else _STOPPED_EARLY))
        click.echo(told[0], err=True)

    def last_words() -> None:
        if sys.stderr.isatty():
            # The bars can be wiped away no more, and have hidden the cursor.
            click.echo("\r\x1b[J\x1b[?25h", nl=False, err=True)
        tell()

    with prompt_stop(last_words, leave_at_exit):
        try:
            yield
        except KeyboardInterrupt as stop:
            # A search that was stopped says that its trials are kept.
            tell(str(stop))
            raise click.exceptions.Exit(INTERRUPTED) from None
        except SystemExit:
            tell()
            raise


def _recorded_since(given: dict[str, Any], started: float) -> bool:
    """Return whether this run has published something."""
    try:
        record = record_folder(given["repository"], given["name"]) / RECORD_FILE
        return record.stat().st_mtime >= started - _CLOCK_SECONDS
    except OSError:
        return False
