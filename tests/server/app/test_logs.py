"""How log lines look."""

import json
import logging
import sys
from collections.abc import Iterator

import pytest

from flyweight.server.logs import JsonFormatter, TextFormatter, configure_logging
from flyweight.server.settings import LogFormat, LogLevel


def record_of(message: str, level: int = logging.WARNING) -> logging.LogRecord:
    return logging.LogRecord("flyweight", level, __file__, 1, message, (), None)


@pytest.mark.parametrize("mark", ["\n", "\r", "\x0b", "\x1b", "\x85", "\u2028", "\x00"])
def test_what_a_caller_sent_cannot_begin_a_line_of_its_own(mark: str) -> None:
    line = TextFormatter().format(record_of(f"no model 'a{mark}ERROR all is lost'"))
    assert line.splitlines() == [line]
    assert mark not in line
    assert json.loads(JsonFormatter().format(record_of(f"a{mark}b")))["message"] == f"a{mark}b"


def test_an_exception_has_lines_of_its_own() -> None:
    try:
        int("inside")
    except ValueError:
        record = record_of("it failed")
        record.exc_info = sys.exc_info()
    first, *rest = TextFormatter().format(record).splitlines()
    assert first.endswith("flyweight: it failed")
    assert rest[-1].startswith("ValueError: ")


def test_half_of_a_surrogate_pair_can_be_written() -> None:
    assert json.loads(JsonFormatter().format(record_of("\ud800")))["message"] == "\ud800"
    assert JsonFormatter().format(record_of("\ud800")).isascii()


@pytest.fixture
def kept_root() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("kept_root")
@pytest.mark.parametrize("log_format", LogFormat)
def test_what_is_below_the_level_is_not_written(
    log_format: LogFormat, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(log_format, LogLevel.WARNING)
    logging.getLogger("flyweight").info("too little")
    logging.getLogger("flyweight").warning("enough")
    written = capsys.readouterr().err
    assert "enough" in written
    assert "too little" not in written
