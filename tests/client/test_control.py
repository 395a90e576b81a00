"""The calls of the control service: what goes over the wire, what comes back, for both clients."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest

from flyweight.client import NotFound, Refused, TrafficPlan, Unsupported
from flyweight.client.calls import CONTROL_SERVICE
from flyweight.client.testing import FakeServer, serve_fake
from flyweight.protos.control.v1 import control_pb2 as pb

IN_FORCE = pb.TrafficPlan(
    baseline="fp32",
    shares=[pb.TrafficShare(variant="fp32", percent=90), pb.TrafficShare(variant="int8", percent=10)],
    sticky=pb.StickyKey(parameter="user", metadata="x-user"),
    labels={"stable": "fp32", "canary": "int8"},
    fallback_variant="int8",
    overflow_variant="pruned",
    overflow_above=0.5,
)
PLAN = TrafficPlan(
    baseline="fp32",
    split={"fp32": 90.0, "int8": 10.0},
    labels={"canary": "int8", "stable": "fp32"},
    fallback="int8",
    overflow="pruned",
    overflow_above=0.5,
    sticky_parameter="user",
    sticky_metadata="x-user",
)


@dataclass
class Service:
    """A control service that remembers what it was asked, and answers what the test wants."""

    address: str = ""
    asked: list[Any] = field(default_factory=list)
    failure: tuple[grpc.StatusCode, str] | None = None

    def answer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.asked.append(request)
        if self.failure is not None:
            context.abort(*self.failure)
        name = type(request).DESCRIPTOR.name.replace("Request", "Response")
        response = getattr(pb, name)(plan=IN_FORCE, revision="r1")
        if name == "GetTrafficResponse":
            response.fault = "traffic.yaml is odd."
            response.written.baseline = "int8"
        return response


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            made.answer,
            request_deserializer=getattr(pb, f"{name}Request").FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        for name in ("GetTraffic", "SetTraffic", "Promote", "Rollback")
    }
    server = grpc.server(ThreadPoolExecutor(2))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(CONTROL_SERVICE, handlers),))
    made.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield made
    server.stop(None).wait()


def test_the_plan_in_force_is_read_with_its_revision_and_the_one_that_is_written(
    service: Service, call: Callable[..., Any]
) -> None:
    state = call(service.address, "get_traffic", "digits")
    assert (state.model, state.revision, state.fault) == ("digits", "r1", "traffic.yaml is odd.")
    assert state.plan == PLAN
    assert state.written == TrafficPlan(baseline="int8")


def test_a_plan_is_sent_whole_with_the_revision_it_replaces(
    service: Service, call: Callable[..., Any]
) -> None:
    state = call(service.address, "set_traffic", "digits", PLAN, "r0")
    (request,) = service.asked
    assert request == pb.SetTrafficRequest(model="digits", plan=IN_FORCE, expected_revision="r0")
    assert (state.plan, state.fault, state.written) == (PLAN, "", None)


def test_promoting_and_rolling_back_name_the_model(service: Service, call: Callable[..., Any]) -> None:
    assert call(service.address, "promote", "digits", "int8").revision == "r1"
    assert call(service.address, "rollback", "digits").plan == PLAN
    assert service.asked == [
        pb.PromoteRequest(model="digits", variant="int8"),
        pb.RollbackRequest(model="digits"),
    ]


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.ABORTED, Refused),
        (grpc.StatusCode.FAILED_PRECONDITION, Refused),
        (grpc.StatusCode.NOT_FOUND, NotFound),
    ],
)
def test_a_refusal_keeps_the_servers_words(
    service: Service, call: Callable[..., Any], code: grpc.StatusCode, error: type[Exception]
) -> None:
    service.failure = (code, "Not like this.")
    with pytest.raises(error, match=r"model 'digits', variant 'int8' at .* did not answer Promote: Not like"):
        call(service.address, "promote", "digits", "int8")


def test_a_server_without_the_control_service_is_told(fake: FakeServer, call: Callable[..., Any]) -> None:
    with pytest.raises(Unsupported):
        call(fake.address, "get_traffic", "digits")


def test_a_load_sends_configuration_and_files(call: Callable[..., Any], monkeypatch: Any) -> None:
    from flyweight.client.testing import answers

    seen: list[Any] = []
    real = answers.Answers.load

    def load(self: Any, request: Any) -> Any:
        seen.append(
            {
                name: getattr(value, value.WhichOneof("parameter_choice"))
                for name, value in request.parameters.items()
            }
        )
        return real(self, request)

    method = (answers.METHODS["RepositoryModelLoad"][0], load)
    monkeypatch.setitem(answers.METHODS, "RepositoryModelLoad", method)
    with serve_fake({"digits": dict}) as server:
        call(server.address, "load", "digits", config="{}", files={"1/model.onnx": b"onnx"})
        call(server.address, "load", "digits")
    assert seen == [{"config": "{}", "file:1/model.onnx": b"onnx"}, {}]
