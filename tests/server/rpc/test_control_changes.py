"""The RPCs that change what is served, by their handlers over a real manager with fake runtimes."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flyweight.protos.control.v1 import control_pb2
from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.server.errors import (
    Code,
    Conflict,
    InvalidRequest,
    QueueFull,
    TrafficPlanError,
    UnknownVariant,
    Unsupported,
    code_of,
)
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.rpc.call import Call
from flyweight.server.rpc.control import Control
from flyweight.server.rpc.repository import Repository
from flyweight.server.rpc.slow import SLOW_CALL_THREADS, SlowCalls
from flyweight.server.runtime.fake import FakeFactory, FakeRuntime

SOON = 20.0


@dataclass
class Served:
    manager: Manager
    control: Control
    repository: Repository


@pytest.fixture
def served(repository: Path, tmp_path: Path) -> Iterator[Served]:
    factory = FakeFactory(lambda path: FakeRuntime(scale=3.0 if path.parent.name == "int8" else 2.0))
    settings = ManagerSettings(repository, poll_seconds=0.02, upload_folder=tmp_path)
    manager, slow_calls = Manager(settings, factory), SlowCalls()
    manager.start()
    assert manager.wait_until_settled(SOON)
    yield Served(manager, Control(manager, slow_calls), Repository(manager, slow_calls, allow_control=True))
    manager.stop()


def ask(handler: Callable[[bytes, Call], bytes], request: Any, response: Any) -> Any:
    return response.FromString(handler(request.SerializeToString(), Call()))


def set_traffic(served: Served, plan: control_pb2.TrafficPlan, revision: str = "") -> Any:
    request = control_pb2.SetTrafficRequest(model="tiny", plan=plan, expected_revision=revision)
    return ask(served.control.set_traffic, request, control_pb2.SetTrafficResponse)


def get_traffic(served: Served) -> control_pb2.GetTrafficResponse:
    request = control_pb2.GetTrafficRequest(model="tiny")
    response: control_pb2.GetTrafficResponse = ask(
        served.control.get_traffic, request, control_pb2.GetTrafficResponse
    )
    return response


def shares(**percent: float) -> list[control_pb2.TrafficShare]:
    return [control_pb2.TrafficShare(variant=name, percent=share) for name, share in percent.items()]


WHOLE = control_pb2.TrafficPlan(
    baseline="int8",
    shares=shares(baseline=25, int8=75),
    sticky=control_pb2.StickyKey(parameter="user", metadata="x-user"),
    labels={"canary": "int8"},
    fallback_variant="baseline",
    overflow_variant="int8",
    overflow_above=0.5,
)


def test_what_is_set_is_what_is_told(served: Served) -> None:
    answered = set_traffic(served, WHOLE)
    assert answered.plan == WHOLE
    told = get_traffic(served)
    assert (told.plan, told.written, told.fault) == (WHOLE, WHOLE, "")
    assert told.revision == answered.revision


def test_without_a_file_an_empty_plan_is_written(served: Served) -> None:
    told = get_traffic(served)
    assert told.HasField("written")
    assert told.written == control_pb2.TrafficPlan()
    assert told.plan.baseline == "baseline"


def test_a_file_that_cannot_be_followed_is_not_told_as_written(served: Served, repository: Path) -> None:
    (repository / "tiny" / "traffic.yaml").write_text("split: {baseline: 1")
    served.manager.load_model("tiny", SOON)
    told = get_traffic(served)
    assert not told.HasField("written")
    assert "not valid YAML" in told.fault


def test_a_revision_that_is_not_the_current_one_is_aborted(served: Served) -> None:
    first = get_traffic(served).revision
    set_traffic(served, WHOLE, first)
    with pytest.raises(Conflict) as caught:
        set_traffic(served, WHOLE, first)
    assert code_of(caught.value) is Code.ABORTED


def test_a_promotion_by_label_and_its_undoing(served: Served) -> None:
    set_traffic(served, control_pb2.TrafficPlan(shares=shares(baseline=100), labels={"canary": "int8"}))
    request = control_pb2.PromoteRequest(model="tiny", variant="canary")
    promoted = ask(served.control.promote, request, control_pb2.PromoteResponse)
    assert (promoted.plan.baseline, promoted.plan.shares[0].percent) == ("int8", 100)
    back = ask(
        served.control.roll_back,
        control_pb2.RollbackRequest(model="tiny"),
        control_pb2.RollbackResponse,
    )
    assert back.plan.baseline == "baseline"
    assert back.revision != promoted.revision


@pytest.mark.parametrize(
    ("plan", "error", "sentence"),
    [
        (
            control_pb2.TrafficPlan(shares=shares(int8=100), shadows=shares(baseline=5)),
            Unsupported,
            "shadows",
        ),
        (control_pb2.TrafficPlan(shares=[*shares(int8=50), *shares(int8=50)]), InvalidRequest, "two shares"),
        (control_pb2.TrafficPlan(shares=shares(int8=float("nan"))), InvalidRequest, "percent"),
        (control_pb2.TrafficPlan(shares=shares(int8=float("inf"))), InvalidRequest, "percent"),
        (
            control_pb2.TrafficPlan(baseline="a\nsplit: {b: 100}"),
            InvalidRequest,
            "cannot be a variant's name",
        ),
        (control_pb2.TrafficPlan(labels={"x": ""}), InvalidRequest, "cannot be a variant's name"),
        (
            control_pb2.TrafficPlan(sticky=control_pb2.StickyKey(metadata="X-User")),
            InvalidRequest,
            "lower-case",
        ),
        (
            control_pb2.TrafficPlan(overflow_variant="int8", overflow_above=float("nan")),
            InvalidRequest,
            "brownout.above",
        ),
        (control_pb2.TrafficPlan(fallback_variant="int4"), TrafficPlanError, "'int4'"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(
    served: Served, repository: Path, plan: control_pb2.TrafficPlan, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        set_traffic(served, plan)
    assert not (repository / "tiny" / "traffic.yaml").exists()


def test_promoting_nothing_or_what_is_not_there_is_refused(served: Served) -> None:
    for variant, error in (("", InvalidRequest), ("int4", UnknownVariant)):
        with pytest.raises(error):
            ask(
                served.control.promote,
                control_pb2.PromoteRequest(model="tiny", variant=variant),
                control_pb2.PromoteResponse,
            )


def load_request(name: str = "tiny", **parameters: pb.ModelRepositoryParameter) -> Any:
    return pb.RepositoryModelLoadRequest(model_name=name, parameters=parameters)


def text(value: str) -> pb.ModelRepositoryParameter:
    return pb.ModelRepositoryParameter(string_param=value)


def content(value: bytes) -> pb.ModelRepositoryParameter:
    return pb.ModelRepositoryParameter(bytes_param=value)


def load(served: Served, request: Any) -> None:
    ask(served.repository.load, request, pb.RepositoryModelLoadResponse)


def test_a_load_takes_a_configuration_as_json(served: Served) -> None:
    load(served, load_request(config=text('{"max_batch_size": 5, "versionPolicy": {"all": {}}}')))
    assert served.manager.table.models["tiny"].variants["int8"].signature.max_batch_rows == 5


def test_a_load_takes_files(served: Served) -> None:
    load(served, load_request("brought", config=text("{}"), **{"file:1/model.onnx": content(b"onnx")}))
    assert list(served.manager.table.models["brought"].variants) == ["1"]


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"config": text("{")}, "is not the JSON form"),
        ({"config": text('{"no_such_field": 1}')}, "no_such_field"),
        ({"config": text("[" * 100_000)}, "'config'"),
        ({"config": text(" " * 200_000)}, "at most 131072 characters"),
        ({"config": content(b"{}")}, "must be a string"),
        ({"file:1/model.onnx": content(b"")}, "no 'config'"),
        ({"config": text("{}"), "file:1/model.onnx": text("")}, "must be bytes_param"),
        ({"config": text("{}"), "file:model.onnx": content(b"")}, "names no file in a version's folder"),
        ({"config": text("{}"), "file:../1/model.onnx": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:1/../../x": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:/etc/passwd": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:1//x": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:1/.hidden": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:1/a\0b": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:1/2/3/4/5": content(b"")}, "names no file"),
        ({"config": text("{}"), "file:1/" + "x" * 200: content(b"")}, "names no file"),
        ({"priority": text("1")}, "has no parameter 'priority'"),
        ({"config": text("{}")} | {f"file:1/{n}": content(b"") for n in range(300)}, "256 are the most"),
    ],
)
def test_a_load_with_other_parameters_is_refused(
    served: Served, tmp_path: Path, parameters: Any, sentence: str
) -> None:
    with pytest.raises(InvalidRequest, match=sentence):
        load(served, load_request(**parameters))
    assert not list(tmp_path.glob("flyweight-uploads-*"))


def test_a_model_is_not_uploaded_under_a_name_that_is_a_path(served: Served) -> None:
    with pytest.raises(InvalidRequest, match="cannot name a model"):
        load(served, load_request("../x", config=text("{}"), **{"file:1/model.onnx": content(b"")}))


def test_an_unload_takes_unload_dependents_and_nothing_else(served: Served) -> None:
    yes = pb.ModelRepositoryParameter(bool_param=True)
    for name, value in (("unload_dependents", text("yes")), ("force", yes)):
        request = pb.RepositoryModelUnloadRequest(model_name="tiny", parameters={name: value})
        with pytest.raises(InvalidRequest, match=f"has no parameter '{name}' of that type"):
            ask(served.repository.unload, request, pb.RepositoryModelUnloadResponse)
    request = pb.RepositoryModelUnloadRequest(model_name="tiny", parameters={"unload_dependents": yes})
    ask(served.repository.unload, request, pb.RepositoryModelUnloadResponse)
    assert not served.manager.table.models


def test_slow_calls_beyond_the_most_are_refused_at_once() -> None:
    slow_calls = SlowCalls(2)
    with (
        slow_calls.take(),
        slow_calls.take(),
        pytest.raises(QueueFull, match="2 loads, unloads or changes of traffic are in progress"),
        slow_calls.take(),
    ):
        pytest.fail("it was taken")
    with slow_calls.take():
        pass
    assert SLOW_CALL_THREADS > 8, "one that is refused finds a thread"


def test_a_slow_call_that_fails_gives_its_place_back() -> None:
    slow_calls = SlowCalls(1)
    with pytest.raises(ZeroDivisionError), slow_calls.take():
        raise ZeroDivisionError
    done = threading.Event()
    with slow_calls.take():
        done.set()
    assert done.is_set()
