"""The access log: one line for each call, which nobody but the server writes."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace

import pytest

from flyweight.server.errors import Code
from flyweight.server.logs import JsonFormatter, TextFormatter
from flyweight.server.rpc.access_log import AccessLog
from flyweight.server.rpc.call import Call, Peer
from flyweight.server.rpc.records import Answerer
from flyweight.server.security.callers import Caller

PATH = "/inference.GRPCInferenceService/ModelInfer"
CALL = Call(
    metadata=(("authorization", "Bearer secret-token"), ("cookie", "secret-cookie")),
    peer=lambda: Peer("10.0.0.1:5", ("shop.example.org",)),
    caller=Caller("shop"),
)


class Lines(logging.Handler):
    """Keeps records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def lines() -> Iterator[list[logging.LogRecord]]:
    handler, logger = Lines(), logging.getLogger("flyweight.access")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def test_a_line_says_who_asked_what_and_what_became_of_it(lines: list[logging.LogRecord]) -> None:
    log = AccessLog(is_on=True)
    call = replace(CALL, answerer=Answerer("tiny", "int8", "candidate"), request_id="q-1")
    log.write(PATH, call, Code.OK, 0.0123456)
    (record,) = lines
    assert record.getMessage() == (
        "method=ModelInfer code=OK milliseconds=12.346 peer=10.0.0.1:5 caller=shop "
        "certificate=shop.example.org model=tiny variant=int8 request_id=q-1"
    )


def test_a_json_line_has_each_as_a_value(lines: list[logging.LogRecord]) -> None:
    AccessLog(is_on=True).write(PATH, CALL, Code.NOT_FOUND, 0.5)
    line = json.loads(JsonFormatter().format(lines[0]))
    assert (line["method"], line["code"], line["milliseconds"]) == ("ModelInfer", "NOT_FOUND", 500.0)
    assert (line["caller"], line["level"], line["logger"]) == ("shop", "info", "flyweight.access")
    assert "model" not in line


def test_metadata_is_not_in_it(lines: list[logging.LogRecord]) -> None:
    AccessLog(is_on=True).write(PATH, CALL, Code.OK, 0.1)
    assert "secret" not in JsonFormatter().format(lines[0])


@pytest.mark.parametrize(
    "forged", ["q\nmethod=ModelInfer", "q code=OK", "q=1", "q\u2028x", "q\x1b[31m", "'q'"]
)
def test_a_request_id_cannot_pass_for_anything_else(lines: list[logging.LogRecord], forged: str) -> None:
    AccessLog(is_on=True).write(PATH, Call(request_id=forged), Code.OK, 0.1)
    line = TextFormatter().format(lines[0])
    assert len(line.splitlines()) == 1
    assert line.endswith(f"request_id={forged!r}")
    assert json.loads(JsonFormatter().format(lines[0]))["request_id"] == forged


def test_a_request_id_that_is_no_id_is_cut(lines: list[logging.LogRecord]) -> None:
    AccessLog(is_on=True).write(PATH, Call(request_id="x" * 10_000), Code.OK, 0.1)
    assert len(lines[0].getMessage()) < 300


def test_off_it_asks_nothing_and_writes_nothing(lines: list[logging.LogRecord]) -> None:
    def nobody() -> Peer:
        raise AssertionError("the peer was asked for")

    AccessLog(is_on=False).write(PATH, Call(peer=nobody), Code.OK, 0.1)
    assert lines == []
