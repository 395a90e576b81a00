"""`flyweight traffic`, `promote`, `rollback`, `load` and `unload`: what they send and what they print."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from flyweight.client.calls import CONTROL_SERVICE
from flyweight.client.testing import FakeServer
from flyweight.protos.control.v1 import control_pb2 as pb


class Control:
    """A control service over one plan in memory, whose revision counts its changes."""

    def __init__(self) -> None:
        self.address = ""
        self.written = pb.TrafficPlan(
            shares=[pb.TrafficShare(variant="fp32", percent=60), pb.TrafficShare(variant="int8", percent=40)],
            labels={"stable": "fp32"},
        )
        self.revision = 1
        self.fault = ""

    def in_force(self) -> pb.TrafficPlan:
        """As a server has it that has int8 not ready."""
        return pb.TrafficPlan(
            baseline="fp32", shares=[pb.TrafficShare(variant="fp32", percent=100)], labels=self.written.labels
        )

    def get(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.GetTrafficResponse(
            plan=self.in_force(), written=self.written, revision=str(self.revision), fault=self.fault
        )

    def set(self, request: Any, context: grpc.ServicerContext) -> Any:
        if request.expected_revision != str(self.revision):
            context.abort(grpc.StatusCode.ABORTED, "It was changed.")
        self.written, self.revision = request.plan, self.revision + 1
        return pb.SetTrafficResponse(plan=self.in_force(), revision=str(self.revision))

    def promote(self, request: Any, context: grpc.ServicerContext) -> Any:
        plan = pb.TrafficPlan(
            baseline=request.variant, shares=[pb.TrafficShare(variant=request.variant, percent=100)]
        )
        return pb.PromoteResponse(plan=plan, revision="2")

    def rollback(self, request: Any, context: grpc.ServicerContext) -> Any:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "No promotion in 'digits' is remembered.")


@pytest.fixture
def control() -> Iterator[Control]:
    made = Control()
    behaviours = {
        "GetTraffic": made.get,
        "SetTraffic": made.set,
        "Promote": made.promote,
        "Rollback": made.rollback,
    }
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            behaviour,
            request_deserializer=getattr(pb, f"{name}Request").FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name, behaviour in behaviours.items()
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CONTROL_SERVICE, handlers),))
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(None).wait()


def test_the_plan_in_force_is_a_table(run: Any, control: Control) -> None:
    control.fault = "The variant 'int8' is not ready."
    done = run("traffic", "get", "digits", "--url", control.address)
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "variant  role      traffic  also",
        "fp32     baseline    100 %  label stable",
        "",
        "digits is at revision 1.",
        "",
        "The plan in the repository is not in force: The variant 'int8' is not ready.",
    ]


def test_json_is_one_document(run: Any, control: Control) -> None:
    found = json.loads(run("traffic", "get", "digits", "--json", "--url", control.address).out)
    assert found["split"] == {"fp32": 100}
    assert found["labels"] == {"stable": "fp32"}
    assert (found["revision"], found["baseline"]) == ("1", "fp32")


def test_what_is_not_named_stays_as_it_is_written(run: Any, control: Control) -> None:
    """And not as it is in force, which leaves out what is not ready at the moment."""
    arguments = ["--label", "canary=int8", "--overflow", "int8", "--overflow-above", "0.5"]
    done = run("traffic", "set", "digits", *arguments, "--url", control.address)
    assert (done.code, done.err) == (0, "")
    written = control.written
    assert {share.variant: share.percent for share in written.shares} == {"fp32": 60, "int8": 40}
    assert dict(written.labels) == {"stable": "fp32", "canary": "int8"}
    assert (written.overflow_variant, written.overflow_above) == ("int8", 0.5)


def test_shares_replace_the_split_and_an_empty_value_takes_away(run: Any, control: Control) -> None:
    control.written.fallback_variant = "int8"
    done = run(
        "traffic",
        "set",
        "digits",
        "int8=100",
        "--label",
        "stable=",
        "--fallback",
        "",
        "--url",
        control.address,
    )
    assert done.code == 0
    assert [(share.variant, share.percent) for share in control.written.shares] == [("int8", 100)]
    assert not control.written.labels
    assert control.written.fallback_variant == ""


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "Name what to change"),
        (["int8"], "'int8' is not of the form NAME=VALUE, as a share is."),
        (["int8=much"], "'much' is no number of percent."),
        (["--label", "=int8"], "as --label is"),
        (["--overflow-above", "50"], "0<=x<=1"),
        (["int8=100", "--revision", "7"], "It was changed (ABORTED)."),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    run: Any, control: Control, arguments: list[str], part: str
) -> None:
    done = run("traffic", "set", "digits", *arguments, "--url", control.address)
    assert (done.code, done.out) == (2, "")
    assert part in done.err
    assert control.revision == 1


def test_promote_shows_the_new_plan(run: Any, control: Control) -> None:
    done = run("promote", "digits", "int8", "--url", control.address)
    assert done.code == 0
    assert "int8     baseline    100 %" in done.out


def test_a_rollback_that_is_refused_says_why(run: Any, control: Control) -> None:
    done = run("rollback", "digits", "--url", control.address)
    assert (done.code, done.out) == (2, "")
    assert (
        "did not answer Rollback: No promotion in 'digits' is remembered (FAILED_PRECONDITION)." in done.err
    )


def test_a_server_of_others_is_told_in_one_sentence(run: Any, digits: FakeServer) -> None:
    done = run("traffic", "get", "digits", "--url", digits.address)
    assert done.code == 2
    assert "(UNIMPLEMENTED)" in done.err


def test_load_and_unload_say_what_was_done(run: Any, digits: FakeServer) -> None:
    assert run("unload", "digits", "--url", digits.address).out == "digits is unloaded.\n"
    assert json.loads(run("load", "digits", "--json", "--url", digits.address).out) == {
        "model": "digits",
        "loaded": True,
    }
    done = run("load", "huge", "--url", digits.address)
    assert (done.code, done.out) == (2, "")
    assert "there is no model 'huge'" in done.err


def test_a_file_to_send_that_is_not_there_is_told(run: Any, digits: FakeServer) -> None:
    done = run("load", "digits", "--config", "nowhere.json", "--url", digits.address)
    assert done.code == 2
    assert "nowhere.json cannot be read (No such file or directory)" in done.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["traffic", "digits"], "of a model: flyweight traffic get digits"),
        (["traffic", "set", "fp32=90", "digits"], "the model comes first: traffic set MODEL fp32=90"),
    ],
)
def test_words_in_the_wrong_order_are_told_in_the_right_one(
    run: Any, arguments: list[str], told: str
) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert told in done.err


@pytest.mark.parametrize("command", [["traffic"], ["traffic", "set"], ["promote"], ["rollback"], ["load"]])
def test_every_command_shows_examples(run: Any, command: list[str]) -> None:
    assert "Example" in run(*command, "--help").out
