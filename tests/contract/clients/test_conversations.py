"""Clients of other stacks: each asks the same, and hears the same over either transport."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from grpc_health.v1 import health_pb2

from flyweight.protos.inference.grpc_service_pb2 import (
    ModelInferRequest,
    ModelInferResponse,
    ModelStreamInferResponse,
)
from flyweight.server.app import Started
from tests.contract.clients.conversation import INFERENCE, PATIENCE_SECONDS, Ask, Client, Outcome
from tests.contract.clients.echo import SENTENCE, SERVICE, TRAILER, WATCHED, Echo

pytestmark = pytest.mark.system

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, ABORTED = 0, 1, 4, 5, 10
RESOURCE_EXHAUSTED, UNIMPLEMENTED = 8, 12
MEGABYTE = 1 << 20
HOLD = f"{SERVICE}/Hold"


def request_of(*values: float, identity: str = "", model: str = "double") -> bytes:
    request = ModelInferRequest(model_name=model, id=identity)
    request.inputs.add(name="x", datatype="FP32", shape=[1, len(values)])
    request.raw_input_contents.append(np.array(values, np.float32).tobytes())
    return request.SerializeToString()


def values_of(response: ModelInferResponse) -> list[float]:
    found: list[float] = np.frombuffer(response.raw_output_contents[0], np.float32).tolist()
    return found


def one(client: Client, address: str, ask: Ask) -> Outcome:
    (outcome,) = client.ask(address, [ask])
    return outcome


def test_an_inference_has_its_answer(client: Client, started: Started) -> None:
    outcome = one(client, started.address, Ask(f"{INFERENCE}/ModelInfer", (request_of(1, 2.5),)))
    assert (outcome.code, outcome.sentence) == (OK, "")
    assert values_of(ModelInferResponse.FromString(outcome.bodies[0])) == [2, 5]


@pytest.mark.parametrize("is_in_turns", [True, False])
def test_a_stream_of_inferences_is_answered_in_order(
    client: Client, started: Started, is_in_turns: bool
) -> None:
    bodies = tuple(request_of(value, identity=str(value)) for value in range(50))
    path = f"{INFERENCE}/ModelStreamInfer"
    outcome = one(client, started.address, Ask(path, bodies, is_stream=True, is_in_turns=is_in_turns))
    assert outcome.code == OK
    answers = [ModelStreamInferResponse.FromString(body).infer_response for body in outcome.bodies]
    assert [(each.id, values_of(each)) for each in answers] == [(str(n), [2 * n]) for n in range(50)]


def test_an_unknown_model_is_told_by_its_name(client: Client, started: Started) -> None:
    ask = Ask(f"{INFERENCE}/ModelInfer", (request_of(1, model="größe-日本"),))
    outcome = one(client, started.address, ask)
    assert (outcome.code, outcome.bodies) == (NOT_FOUND, ())
    assert "'größe-日本'" in outcome.sentence


def test_a_status_comes_with_its_words_and_its_trailing_metadata(client: Client, echo: Echo) -> None:
    outcome = one(client, echo.address, Ask(f"{SERVICE}/Fail"))
    assert (outcome.code, outcome.sentence, outcome.bodies) == (ABORTED, SENTENCE, ())
    assert TRAILER in outcome.trailers


def test_an_unknown_method_is_unimplemented(client: Client, echo: Echo) -> None:
    assert one(client, echo.address, Ask(f"{SERVICE}/Nothing")).code == UNIMPLEMENTED


def test_metadata_arrives_as_it_was_sent(client: Client, echo: Echo) -> None:
    """Binary values of each length modulo three, for their padding, and with every octet."""
    sent: list[tuple[str, str | bytes]] = [
        ("flyweight-key", "someone"),
        ("spaced", "a value, with: signs"),
        ("several", "first"),
        ("several", "second"),
        *((f"of-{size}-bin", bytes(range(size))) for size in (1, 2, 3, 256)),
    ]
    outcome = one(client, echo.address, Ask(f"{SERVICE}/Metadata", metadata=tuple(sent)))
    assert outcome.code == OK
    found = [tuple(pair) for pair in json.loads(outcome.bodies[0])]
    expected = [(name, value if isinstance(value, str) else value.hex()) for name, value in sent]
    assert [pair for pair in sorted(found) if pair[0] in dict(sent)] == sorted(expected)


def test_large_messages_go_both_ways_beside_small_ones(client: Client, echo: Echo) -> None:
    body = np.random.default_rng(5).bytes(3 * MEGABYTE)
    asks = [Ask(f"{SERVICE}/Same", (each,)) for each in [body, body[:7]] * 4]
    outcomes = client.ask(echo.address, asks)
    assert [outcome.code for outcome in outcomes] == [OK] * 8
    assert [outcome.bodies for outcome in outcomes] == [ask.bodies for ask in asks]


def test_a_message_over_the_limit_is_refused(client: Client, echo: Echo) -> None:
    outcome = one(client, echo.address, Ask(f"{SERVICE}/Same", (bytes(9 * MEGABYTE),)))
    assert (outcome.code, outcome.bodies) == (RESOURCE_EXHAUSTED, ())


def test_packed_messages_are_understood(client: Client, echo: Echo) -> None:
    if not client.packs:
        pytest.skip("this client packs no messages")
    body = b"ab" * MEGABYTE
    outcome = one(client, echo.address, Ask(f"{SERVICE}/Same", (body,), is_packed=True))
    assert (outcome.code, outcome.bodies) == (OK, (body,))


def test_a_packed_message_over_the_limit_is_refused(client: Client, echo: Echo) -> None:
    if not client.packs:
        pytest.skip("this client packs no messages")
    outcome = one(client, echo.address, Ask(f"{SERVICE}/Same", (bytes(9 * MEGABYTE),), is_packed=True))
    assert (outcome.code, outcome.bodies) == (RESOURCE_EXHAUSTED, ())


def test_packed_answers_are_understood(client: Client, packing: Echo, transport: str) -> None:
    if not client.packs and transport == "grpcio":
        pytest.skip("gRPC's core packs answers also for who does not say that it understands them")
    body = b"ab" * MEGABYTE
    outcome = one(client, packing.address, Ask(f"{SERVICE}/Same", (body,)))
    assert (outcome.code, outcome.bodies) == (OK, (body,))


def test_thousands_of_calls_on_one_connection_have_each_their_answer(client: Client, echo: Echo) -> None:
    asks = [Ask(f"{SERVICE}/Same", (b"%d" % number * 100,)) for number in range(4000)]
    outcomes = client.ask(echo.address, asks)
    assert {(outcome.code, outcome.sentence) for outcome in outcomes} == {(OK, "")}
    assert [outcome.bodies for outcome in outcomes] == [ask.bodies for ask in asks]


def test_streams_at_one_time_on_one_connection_do_not_hold_each_other_up(client: Client, echo: Echo) -> None:
    asks = [Ask(HOLD, (b"%d" % number,), is_stream=True, cancel_after=1) for number in range(20)]
    outcomes = client.ask(echo.address, [*asks, Ask(f"{SERVICE}/Same", (b"beside",))])
    assert [outcome.bodies for outcome in outcomes] == [*(ask.bodies for ask in asks), (b"beside",)]
    for _ in asks:
        echo.await_end()


def test_a_cancelled_call_ends_at_the_server_too(client: Client, echo: Echo) -> None:
    outcome = one(client, echo.address, Ask(HOLD, (b"a", b"b"), is_stream=True, cancel_after=2))
    assert (outcome.code, outcome.bodies) == (CANCELLED, (b"a", b"b"))
    echo.await_end()


def test_a_deadline_that_passes_ends_the_call_at_both_ends(client: Client, echo: Echo) -> None:
    outcome = one(client, echo.address, Ask(HOLD, (b"a",), is_stream=True, timeout_seconds=0.3))
    assert outcome.code == DEADLINE_EXCEEDED
    echo.await_end()


def test_health_is_watched_as_it_changes(client: Client, echo: Echo) -> None:
    echo.tell_health(is_serving=True)
    is_heard = threading.Event()
    body = health_pb2.HealthCheckRequest(service=WATCHED).SerializeToString()
    ask = Ask("/grpc.health.v1.Health/Watch", (body,), is_stream=True, cancel_after=2)
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(client.ask, echo.address, [ask], lambda _: is_heard.set())
        assert is_heard.wait(PATIENCE_SECONDS)
        echo.tell_health(is_serving=False)
        (outcome,) = asked.result(PATIENCE_SECONDS)
    states = [health_pb2.HealthCheckResponse.FromString(body).status for body in outcome.bodies]
    assert states == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
