"""What a worker says of itself once it is up, and what it never should."""

import json

import numpy as np
import pytest

from flyweight.server.errors import RunFailed
from flyweight.server.runtime.process.child import result_of
from flyweight.server.runtime.process.faults import PacketFault
from flyweight.server.runtime.process.lane import ANSWER, FAILURE, Message
from flyweight.server.runtime.process.startup import Report
from flyweight.server.runtime.seam import Array, Signature, TensorSpec

GOOD = Report(
    signature=Signature((TensorSpec("x", "FP32", (-1, 4), optional=True),), (TensorSpec("y", "BYTES", ()),)),
    load_pss_bytes=5,
)


def test_a_report_arrives_as_it_was_sent() -> None:
    assert Report.decode(GOOD.encode()) == GOOD


@pytest.mark.parametrize("line", [b"0\n", b"null", b'"text"', b"[]", b"{", b"[" * 100_000, b"\xff"])
def test_what_is_no_report_is_a_fault(line: bytes) -> None:
    with pytest.raises(PacketFault):
        Report.decode(line)


@pytest.mark.parametrize(
    "change",
    [
        {"failure": 3},
        {"load_pss_bytes": "5"},
        {"load_pss_bytes": -1},
        {"base_pss_bytes": 1.5},
        {"other": 1},
        {"signature": {"inputs": "xy", "outputs": []}},
        {"signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": "ab"}], "outputs": []}},
        {"signature": {"inputs": [{"name": 1, "datatype": "FP32", "shape": []}], "outputs": []}},
    ],
)
def test_a_report_of_other_things_is_a_fault(change: dict[str, object]) -> None:
    fields = json.loads(GOOD.encode()) | change
    with pytest.raises(PacketFault):
        Report.decode(json.dumps(fields).encode())


def message(kind: int, arrays: dict[str, Array], number: int = 7) -> Message:
    return Message(kind, number, 0.0, (), arrays, 0)


ONES = np.ones(3, np.float32)


def test_an_answer_is_a_copy_of_the_outputs_that_were_wanted() -> None:
    outputs = result_of(message(ANSWER, {"y": ONES}), 7, ("y",))
    np.testing.assert_array_equal(outputs["y"], ONES)
    assert not np.shares_memory(outputs["y"], ONES)


@pytest.mark.parametrize(
    "answer",
    [
        message(ANSWER, {"z": ONES}),
        message(ANSWER, {}),
        message(ANSWER, {"y": ONES, "z": ONES}),
        message(ANSWER, {"y": ONES}, number=8),
        message(9, {"y": ONES}),
        message(FAILURE, {"NoError": ONES.view(np.uint8)}),
        # Text travels as objects, whose bytes are addresses.
        message(FAILURE, {"RunFailed": np.array([b"Too much."], object)}),
    ],
)
def test_an_answer_to_something_else_is_a_fault(answer: Message) -> None:
    with pytest.raises(PacketFault):
        result_of(answer, 7, ("y",))


def test_a_failure_is_told_in_the_workers_words() -> None:
    sentence: Array = np.frombuffer(b"Too much.", np.uint8)
    with pytest.raises(RunFailed, match=r"^Too much\.$"):
        result_of(message(FAILURE, {"RunFailed": sentence}), 7, ("y",))
