import io
import logging
import re
from collections.abc import Iterator

import pytest

from flyweight.server.errors import InvalidRequest, NotSetUp, Unsupported
from flyweight.server.logs import JsonFormatter
from flyweight.server.rpc.log_settings import LogChoice, LogControl, changed

log = logging.getLogger("flyweight.server.test")


class Page:
    """What a handler of the root logger wrote."""

    def __init__(self, formatter: logging.Formatter) -> None:
        self.stream = io.StringIO()
        self.handler = logging.StreamHandler(self.stream)
        self.handler.setFormatter(formatter)

    def lines(self) -> list[str]:
        found = self.stream.getvalue().splitlines()
        self.stream.seek(0)
        self.stream.truncate()
        return found


@pytest.fixture
def page() -> Iterator[Page]:
    found, root = Page(logging.Formatter("%(asctime)s %(message)s")), logging.getLogger()
    level = root.level
    root.addHandler(found.handler)
    root.setLevel(logging.INFO)
    yield found
    root.setLevel(level)
    root.removeHandler(found.handler)


@pytest.fixture
def control(page: Page) -> Iterator[LogControl]:
    found = LogControl(lambda: [page.handler])
    yield found
    found.close()


def written(page: Page) -> list[str]:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(level, "%s", logging.getLevelName(level).lower())
    return [line.split()[-1] for line in page.lines()]


USUAL = ["info", "warning", "error", "critical"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, USUAL),
        ({"log_info": False}, ["warning", "error", "critical"]),
        ({"log_warning": False}, ["info", "error", "critical"]),
        ({"log_error": False}, ["info", "warning"]),
        ({"log_verbose_level": 1}, ["debug", *USUAL]),
        ({"log_verbose_level": 3, "log_info": False}, ["debug", "warning", "error", "critical"]),
    ],
)
def test_what_is_switched_off_is_not_written(
    control: LogControl, page: Page, values: dict[str, bool | int], expected: list[str]
) -> None:
    control.change(values)
    assert written(page) == expected
    control.close()
    assert written(page) == USUAL


def test_times_have_the_form_asked_for(control: LogControl, page: Page) -> None:
    control.change({"log_format": "ISO8601"})
    log.info("x")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ x", page.lines()[0])
    control.change({"log_format": "default"})
    log.info("x")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} x", page.lines()[0])


def test_closing_leaves_the_log_as_it_was_found(control: LogControl, page: Page) -> None:
    level = logging.getLogger("flyweight").level
    control.change({"log_verbose_level": 2, "log_info": False, "log_format": "ISO8601"})
    control.close()
    assert logging.getLogger("flyweight").level == level
    assert page.handler.filters == []
    assert control.choice() == LogChoice()


def test_all_of_a_change_is_made_or_none(control: LogControl, page: Page) -> None:
    with pytest.raises(InvalidRequest):
        control.change({"log_info": False, "log_colour": True})
    assert written(page) == USUAL


def test_lines_for_machines_keep_the_one_form_of_time(control: LogControl, page: Page) -> None:
    page.handler.setFormatter(JsonFormatter())
    control.change({"log_format": "ISO8601"})
    with pytest.raises(NotSetUp, match="--log-format text"):
        control.change({"log_format": "default"})


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("log_colour", True, "no log setting 'log_colour'; the settings are log_file, log_info"),
        ("log_info", 1, "'log_info' cannot be 1; send true or false"),
        ("log_error", None, "'log_error' cannot be None"),
        ("log_verbose_level", True, "log_verbose_level cannot be True"),
        ("log_verbose_level", "1", "log_verbose_level cannot be '1'"),
        ("log_format", "RFC822", "log_format cannot be 'RFC822'; send default or ISO8601"),
    ],
)
def test_what_is_no_setting_is_refused_by_name(name: str, value: bool | int | str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        changed(LogChoice(), {name: value})


def test_the_file_is_not_a_callers_choice() -> None:
    with pytest.raises(Unsupported, match="log_file"):
        changed(LogChoice(), {"log_file": "/tmp/x"})
