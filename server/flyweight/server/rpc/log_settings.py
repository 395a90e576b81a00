"""What is logged, changed while the server runs: levels and the form of times, by Triton's names.

Source: Triton's logging extension. Where the log goes stays the operator's decision, and what it holds ours:
no level brings a tensor's contents into it.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from flyweight.server.errors import InvalidRequest, NotSetUp, Unsupported
from flyweight.server.logs import JsonFormatter

LogValue = bool | int | str

_PACKAGE: Final = "flyweight"
_FORMATS: Final = ("default", "ISO8601")


@dataclass(frozen=True, slots=True)
class LogChoice:
    """What is logged; `verbose` above 0 adds the lines for those who look for faults."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose: int = 0
    time_format: str = "default"

    def values(self) -> dict[str, LogValue]:
        """Return the settings by Triton's names; log_file is empty, for the log goes to standard error."""
        return {
            "log_file": "",
            "log_info": self.info,
            "log_warning": self.warning,
            "log_error": self.error,
            "log_verbose_level": self.verbose,
            "log_format": self.time_format,
        }


def changed(choice: LogChoice, values: Mapping[str, LogValue | None]) -> LogChoice:
    """Return a choice with other values; pure.

    Raises:
        InvalidRequest: there is no such setting, or not of this value.
        Unsupported: it is the log's file.
    """
    for name, value in values.items():
        match name:
            case "log_info":
                choice = replace(choice, info=_switch(name, value))
            case "log_warning":
                choice = replace(choice, warning=_switch(name, value))
            case "log_error":
                choice = replace(choice, error=_switch(name, value))
            case "log_verbose_level":
                choice = replace(choice, verbose=_level(value))
            case "log_format":
                choice = replace(choice, time_format=_time_format(value))
            case "log_file":
                raise Unsupported("The log goes where the operator sends standard error; leave log_file out.")
            case _:
                known = ", ".join(LogChoice().values())
                raise InvalidRequest(f"There is no log setting {name!r}; the settings are {known}.")
    return choice


def _switch(name: str, value: LogValue | None) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"The log setting {name!r} cannot be {value!r}; send true or false.")
    return value


def _level(value: LogValue | None) -> int:
    # bool is an int to Python, and is not to the protocol.
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequest(f"The log_verbose_level cannot be {value!r}; send a whole number, 0 or more.")
    return value


def _time_format(value: LogValue | None) -> str:
    if value not in _FORMATS:
        raise InvalidRequest(f"The log_format cannot be {value!r}; send default or ISO8601.")
    return str(value)


class LogControl:
    """Applies the choice to the process's log. Thread-safe; `close` leaves the log as it was found.

    `handlers` gives the handlers that write it.
    """

    def __init__(
        self, handlers: Callable[[], Sequence[logging.Handler]] = lambda: logging.getLogger().handlers
    ) -> None:
        self._handlers = handlers
        self._logger = logging.getLogger(_PACKAGE)
        self._usual_level = self._logger.level
        self._lock = threading.Lock()
        self._choice = LogChoice()
        self._filter = _Switches()

    def choice(self) -> LogChoice:
        """Return what is logged now."""
        return self._choice

    def change(self, values: Mapping[str, LogValue | None]) -> LogChoice:
        """Change some settings, all or none of them; return what is logged then.

        Raises:
            InvalidRequest, Unsupported: as `changed`.
            NotSetUp: the log is written for machines, whose times have one form.
        """
        with self._lock:
            choice = changed(self._choice, values)
            if choice.time_format != "ISO8601" and "log_format" in values and self._is_for_machines():
                raise NotSetUp(
                    "The log is written as JSON, whose times are ISO 8601; have the server started with "
                    "--log-format text to choose."
                )
            self._apply(choice)
            return choice

    def close(self) -> None:
        """Log as usual again."""
        with self._lock:
            self._apply(LogChoice())

    def _apply(self, choice: LogChoice) -> None:
        self._logger.setLevel(logging.DEBUG if choice.verbose else self._usual_level)
        self._filter.choice = choice
        is_usual = choice.info and choice.warning and choice.error
        for handler in self._handlers():
            if is_usual:
                handler.removeFilter(self._filter)
            else:
                handler.addFilter(self._filter)
            if choice.time_format != self._choice.time_format and _is_ours(handler):
                _set_time_format(handler.formatter, choice.time_format)
        self._choice = choice

    def _is_for_machines(self) -> bool:
        return any(isinstance(handler.formatter, JsonFormatter) for handler in self._handlers())


class _Switches(logging.Filter):
    """Lets a line pass unless its level is switched off; the verbose ones come with a level of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = LogChoice()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a line is written."""
        choice = self.choice
        if record.levelno >= logging.ERROR:
            return choice.error
        if record.levelno >= logging.WARNING:
            return choice.warning
        return choice.info or record.levelno < logging.INFO


def _is_ours(handler: logging.Handler) -> bool:
    """Tell whether a handler writes text lines for people, as `logs.configure_logging` sets up."""
    return type(handler) is logging.StreamHandler and not isinstance(handler.formatter, JsonFormatter)


def _set_time_format(formatter: logging.Formatter | None, time_format: str) -> None:
    if formatter is None:
        return
    is_iso = time_format == "ISO8601"
    formatter.datefmt = "%Y-%m-%dT%H:%M:%SZ" if is_iso else None
    formatter.converter = time.gmtime if is_iso else time.localtime
