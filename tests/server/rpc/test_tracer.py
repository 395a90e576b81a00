import json
from pathlib import Path

import pytest

from flyweight.server.errors import Code, NotSetUp
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.trace_file import TraceFiles
from flyweight.server.rpc.trace_settings import TraceLevel, TraceSettings
from flyweight.server.rpc.tracer import Tracer, moments_of, written

ON = {"level": TraceLevel.TIMESTAMPS, "rate": 1}


class Notes(TraceFiles):
    """Remembers what would be written."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.names: list[str] = []
        self.traces: list[bytes] = []

    def add(self, file: str, trace: bytes) -> None:
        self.names.append(file)
        self.traces.append(trace)


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def tracer(notes: Notes) -> Tracer:
    return Tracer(notes, wall_clock=lambda: 5.0)


def answered(model: str = "m", variant: str = "1", code: Code = Code.OK) -> Record:
    return Record(
        started=10.0,
        answerer=Answerer(model, variant, "baseline"),
        code=code,
        decode_seconds=1.0,
        queue_seconds=2.0,
        run_seconds=3.0,
        encode_seconds=4.0,
        total_seconds=11.0,
    )


def ask(tracer: Tracer, count: int, model: str = "m") -> None:
    for _ in range(count):
        tracer.record(answered(model))


def test_nothing_is_traced_unless_it_is_switched_on(tracer: Tracer, notes: Notes) -> None:
    ask(tracer, 2000)
    assert notes.traces == []


def test_one_of_so_many_requests_is_traced_until_there_are_enough(tracer: Tracer, notes: Notes) -> None:
    tracer.change("", {**ON, "rate": 3, "count": 2})
    ask(tracer, 5)
    assert len(notes.traces) == 1
    assert tracer.settings().count == 1
    ask(tracer, 20)
    assert len(notes.traces) == 2
    assert tracer.settings().count == 0
    tracer.change("", {"count": 1})
    ask(tracer, 20)
    assert len(notes.traces) == 3


def test_a_numbered_file_takes_so_many_traces(tracer: Tracer, notes: Notes) -> None:
    tracer.change("", {**ON, "log_frequency": 2, "file": "a"})
    ask(tracer, 5)
    assert notes.names == ["a.0", "a.0", "a.1", "a.1", "a.2"]
    tracer.change("", {"file": "b"})
    ask(tracer, 1)
    assert notes.names[-1] == "b.0"


def test_a_models_settings_stand_over_the_global_ones(tracer: Tracer, notes: Notes) -> None:
    tracer.change("m", {**ON, "file": "m"})
    ask(tracer, 1, "other")
    ask(tracer, 1, "m")
    assert notes.names == ["m"]
    tracer.change("", {"log_frequency": 1})
    assert tracer.settings("m") == TraceSettings(TraceLevel.TIMESTAMPS, 1, -1, 1, "m")
    assert tracer.settings("other") == TraceSettings(log_frequency=1)


def test_a_models_settings_that_are_taken_back_are_the_global_ones_again(tracer: Tracer) -> None:
    tracer.change("", {**ON, "rate": 7})
    tracer.change("m", {"rate": 3})
    tracer.change("m", {"rate": None})
    tracer.change("", {"rate": None})
    assert tracer.settings("m") == tracer.settings() == TraceSettings(TraceLevel.TIMESTAMPS)


def test_global_requests_do_not_use_up_a_models_count(tracer: Tracer, notes: Notes) -> None:
    tracer.change("", {**ON, "count": 1})
    tracer.change("m", {"count": 2})
    ask(tracer, 5, "other")
    assert tracer.settings("m").count == 2
    ask(tracer, 5, "m")
    assert len(notes.traces) == 3


def test_without_a_folder_all_but_switching_on_is_allowed() -> None:
    tracer = Tracer(None)
    tracer.change("", {"rate": 5})
    with pytest.raises(NotSetUp, match="--trace-folder"):
        tracer.change("", {**ON, "rate": 7})
    assert tracer.settings() == TraceSettings(rate=5)
    ask(tracer, 5)
    tracer.close()


def test_a_request_that_found_no_variant_is_not_traced(tracer: Tracer, notes: Notes) -> None:
    tracer.change("", ON)
    tracer.record(answered(variant=""))
    assert notes.traces == []


def test_the_moments_are_the_stages_in_order() -> None:
    assert moments_of(answered()) == [
        ("REQUEST_START", 10.0),
        ("QUEUE_START", 11.0),
        ("COMPUTE_START", 13.0),
        ("COMPUTE_INPUT_END", 13.0),
        ("COMPUTE_OUTPUT_START", 16.0),
        ("COMPUTE_END", 20.0),
        ("REQUEST_END", 21.0),
    ]


def test_of_a_failure_only_the_beginning_and_the_end_are_known() -> None:
    assert moments_of(answered(code=Code.INTERNAL)) == [("REQUEST_START", 10.0), ("REQUEST_END", 21.0)]


def test_a_trace_is_written_as_triton_writes_it() -> None:
    head, first, *rest = json.loads(b"[" + written(3, answered(variant="2")) + b"]")
    assert head == {"id": 3, "model_name": "m", "model_version": 2}
    assert first == {"id": 3, "timestamps": [{"name": "REQUEST_START", "ns": 10_000_000_000}]}
    assert len(rest) == 6
    assert json.loads(b"[" + written(3, answered(variant="int8")) + b"]")[0]["model_version"] == "int8"


def test_no_two_traces_have_one_identity_also_after_a_restart(notes: Notes) -> None:
    for now in (5.0, 6.0):
        tracer = Tracer(notes, wall_clock=lambda now=now: now)
        tracer.change("", ON)
        ask(tracer, 3)
    identities = [json.loads(b"[" + trace + b"]")[0]["id"] for trace in notes.traces]
    assert len(set(identities)) == 6
