"""Is the server there, is it ready, is the model: the protocol's own questions and gRPC's."""

import grpc
import pytest
from oip import plain
from oip.cases import MUST, SHOULD, Code, case, extension
from oip.survey import Survey
from oip.target import Target, failure

from flyweight.protos.inference.grpc_service_pb2 import (
    ModelReadyRequest,
    ServerLiveRequest,
    ServerReadyRequest,
)

SERVICE = "inference.GRPCInferenceService"


@case("health/server-live", MUST)
def test_the_server_says_that_it_lives(target: Target) -> None:
    """ServerLive answers OK with live = true.

    Source: Open Inference Protocol, gRPC, "Server Live".
    """
    assert target.call("ServerLive", ServerLiveRequest()).must_be_ok().live is True


@case("health/server-ready", MUST)
def test_the_server_says_that_it_is_ready(target: Target) -> None:
    """ServerReady answers OK with ready = true once the models are loaded.

    Source: Open Inference Protocol, gRPC, "Server Ready".
    """
    assert target.call("ServerReady", ServerReadyRequest()).must_be_ok().ready is True


@case("health/model-ready", MUST)
def test_a_loaded_model_is_ready(target: Target) -> None:
    """ModelReady answers OK with ready = true for a model that answers ModelInfer.

    Source: Open Inference Protocol, gRPC, "Model Ready".
    """
    assert target.call("ModelReady", ModelReadyRequest(name="add_sub")).must_be_ok().ready is True


@pytest.mark.parametrize(
    ("name", "version"),
    [
        pytest.param("no_such_model", "", id="unknown-model"),
        pytest.param("add_sub", "99", id="unknown-version"),
        pytest.param("", "", id="no-name"),
        pytest.param("../add_sub", "", id="path-in-name"),
    ],
)
@case("health/not-ready", MUST)
def test_what_is_not_there_is_not_ready(target: Target, name: str, version: str) -> None:
    """ModelReady of what is not there answers ready = false; ALLOWED: an error that says so.

    Source: Open Inference Protocol, gRPC, "Model Ready".
    """
    answer = target.call("ModelReady", ModelReadyRequest(name=name, version=version))
    if answer.code is Code.OK:
        assert answer.response.ready is False, "REQUIRED ready = false; answered true"
    else:
        answer.must_be(Code.NOT_FOUND, Code.INVALID_ARGUMENT, Code.UNAVAILABLE, Code.FAILED_PRECONDITION)


@case("grpc-health/server", extension("health"))
def test_grpc_health_speaks_for_the_server(target: Target) -> None:
    """Health.Check without a service answers SERVING.

    Source: grpc/grpc, doc/health-checking.md.
    """
    assert plain.check_health(target, "").must_be_ok() == plain.SERVING


@pytest.mark.parametrize(
    "service", [pytest.param(SERVICE, id="service"), pytest.param("add_sub", id="model")]
)
@case("grpc-health", extension("health"))
def test_grpc_health_speaks_for_each_service(target: Target, service: str) -> None:
    """Health.Check of the inference service, and of a model by its name, answers SERVING.

    Source: grpc/grpc, doc/health-checking.md: names are the server's to choose; balancers need the models'.
    """
    assert plain.check_health(target, service).must_be_ok() == plain.SERVING


@case("grpc-health/unknown", extension("health"))
def test_grpc_health_does_not_know_everybody(target: Target) -> None:
    """Health.Check of an unknown service answers NOT_FOUND.

    Source: grpc/grpc, doc/health-checking.md: "the server should respond with status NOT_FOUND".
    """
    plain.check_health(target, "no.such.Service").must_be(Code.NOT_FOUND)


@case("grpc-health/watch", extension("health"))
def test_grpc_health_can_be_watched(target: Target) -> None:
    """Health.Watch sends the present state at once, and goes on until it is cancelled.

    Source: grpc/grpc-proto, grpc/health/v1/health.proto, rpc Watch.
    """
    watch = plain.watch_health(target, "")
    try:
        assert next(watch) == plain.SERVING
    except grpc.RpcError as error:
        pytest.fail(f"REQUIRED a first message; answered {failure(error)}", pytrace=False)
    finally:
        watch.cancel()


@case("reflection/lists-the-service", extension("reflection"))
def test_reflection_lists_the_service(target: Target) -> None:
    """Server reflection names inference.GRPCInferenceService.

    Source: grpc/grpc, doc/server-reflection.md.
    """
    assert SERVICE.encode() in _listed(target)


@case("reflection/describes-the-service", extension("reflection"))
def test_reflection_describes_the_service(target: Target) -> None:
    """The file that contains the service's symbol is given, with the message ModelInferRequest in it.

    Source: grpc/grpc-proto, grpc/reflection/v1/reflection.proto, file_containing_symbol.
    """
    ask = plain.length_delimited(4, SERVICE.encode())
    assert b"ModelInferRequest" in b"".join(plain.reflect(target, _version(target), ask))


@case("reflection/unknown-symbol", extension("reflection"))
def test_reflection_of_an_unknown_symbol_is_an_answer(target: Target) -> None:
    """An unknown symbol is told by an error_response in the stream, which goes on and ends with OK.

    Source: grpc/grpc-proto, grpc/reflection/v1/reflection.proto, message ErrorResponse.
    """
    known, unknown = (plain.length_delimited(4, name) for name in (SERVICE.encode(), b"no.such.Symbol"))
    answers = plain.reflect(target, _version(target), unknown, known)
    assert len(answers) == 2
    assert b"ModelInferRequest" in answers[1]


@case("health/before-the-model", SHOULD)
def test_a_version_that_is_listed_is_ready(target: Target, server: Survey) -> None:
    """Every version that ModelMetadata lists is ready by that version.

    Source: Open Inference Protocol, gRPC, "Model Metadata": versions "available".
    """
    from flyweight.protos.inference.grpc_service_pb2 import ModelMetadataRequest

    metadata = target.call("ModelMetadata", ModelMetadataRequest(name="add_sub")).must_be_ok()
    assert [v for v in metadata.versions if not target.is_ready("add_sub", v)] == []


def _version(target: Target) -> str:
    for name in plain.REFLECTION:
        try:
            plain.list_services(target, name)
        except grpc.RpcError:
            continue
        return name
    raise AssertionError("REQUIRED reflection in version v1 or v1alpha")


def _listed(target: Target) -> bytes:
    return plain.list_services(target, _version(target))
