"""Far more is asked than can be done: who is refused, who is not, and what the server says of it.

The rows are those of `test_stress.py`, and so is the rule: every request is accounted for, by a status that
its row allows.
"""

import hashlib
import json
import signal
import statistics
import time
from pathlib import Path

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from flyweight.protos.inference import grpc_service_pb2 as pb
from flyweight.protos.tensors import encode_inputs
from tests.system.stress.callers import (
    UNARY,
    Caller,
    Crowd,
    Group,
    ask,
    ask_gently,
    ask_many,
    hurried,
    stream_of,
)
from tests.system.stress.ledger import Seen
from tests.system.stress.models import HEAVY_STEPS, publish, set_traffic
from tests.system.stress.scenarios import SEED, Scenario, Stage, play
from tests.system.stress.serving import PATIENCE_SECONDS, Served, eventually, serving

pytestmark = pytest.mark.system

SCALES = {"baseline": 2.0, "int8": 3.0}
OK_OR_FULL = frozenset({"OK", "RESOURCE_EXHAUSTED"})
# As many requests at one time as ten times what the server holds.
HOLDS, CALLERS, EACH = 8, 4, 20
# How long a probe may take under full load: Kubernetes gives one second by default. Many times that, so that
# nothing but a queue in front of them, which at ten times the load never empties, is found out.
PROBE_SECONDS = 10.0


def one_mill(repository: Path) -> None:
    publish(repository, "mill", "baseline", SCALES["baseline"], HEAVY_STEPS)


def heavy_and_light(repository: Path) -> None:
    publish(repository, "mill", "baseline", SCALES["baseline"], HEAVY_STEPS)
    publish(repository, "mill", "int8", SCALES["int8"])
    set_traffic(repository, "mill", "baseline: baseline\nbrownout: {to: int8, above: 0.5}\n")


def two_levels(repository: Path) -> None:
    publish(repository, "mill", "baseline", SCALES["baseline"], HEAVY_STEPS)
    (repository / "mill" / "config.pbtxt").write_text(
        "max_batch_size: 2\ndynamic_batching { priority_levels: 2 default_priority_level: 2 }\n"
    )


def probe(caller: Caller) -> None:
    """Ask what probes and clients ask besides: is it alive, is it ready, what is it."""
    health = health_pb2_grpc.HealthStub(caller.channel)
    service = "/inference.GRPCInferenceService/"
    began = time.monotonic()
    questions = (
        lambda: health.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_SECONDS),
        lambda: caller.channel.unary_unary(service + "ServerLive")(b"", timeout=PROBE_SECONDS),
        lambda: caller.channel.unary_unary(service + "ModelMetadata")(
            pb.ModelMetadataRequest(name="mill").SerializeToString(), timeout=PROBE_SECONDS
        ),
    )
    for question in questions:
        caller.ledger.send()
        try:
            question()
        except grpc.RpcError as error:
            caller.ledger.note(Seen(error.code().name))
        else:
            caller.ledger.note(Seen("OK", seconds=time.monotonic() - began))
    caller.stopping.wait(0.01)


def wait_for_probes(stage: Stage) -> None:
    stage.await_more("probe", 15)


def counters_agree(stage: Stage) -> None:
    """What callers counted, the server did."""
    codes = stage.crowd.ledgers["crowd"].codes
    scrape = stage.served.scrape()
    rejected = scrape['flyweight_requests_rejected_total{model="mill",reason="queue_full"}']
    assert rejected == codes["RESOURCE_EXHAUSTED"]
    assert ran(stage.served) == codes["OK"]


def ran(served: Served) -> float:
    """Return how many requests were in a run, runs of several requests counting as often."""
    return served.total("flyweight_run_requests_sum", 'model="mill"')


def late_ones_were_not_run(stage: Stage) -> None:
    served = stage.served
    eventually(lambda: served.total("flyweight_requests_in_flight"), lambda held: held == 0)
    scrape = served.scrape()
    answered = served.total("flyweight_requests_total", 'code="OK"')
    assert ran(served) == answered
    assert scrape['flyweight_requests_rejected_total{model="mill",reason="deadline"}'] > 0


def int8_helped_out(stage: Stage) -> None:
    variants = stage.crowd.ledgers["crowd"].variants
    assert variants["int8", "brownout"] > 0
    assert set(variants) <= {("baseline", "default"), ("int8", "brownout")}
    # Whoever asks for the dear one by name gets it, however busy it is.
    assert set(stage.crowd.ledgers["loyal"].variants) == {("baseline", "pinned")}


def the_high_ones_wait_less(stage: Stage) -> None:
    high, low = (statistics.median(stage.crowd.ledgers[name].seconds) for name in ("high", "low"))
    assert high < low


CROWD = Group("crowd", CALLERS, "mill", scales=SCALES, required=OK_OR_FULL, behave=ask_many(EACH))

SCENARIOS = (
    Scenario(
        "ten times as much is asked as is held",
        one_mill,
        (CROWD, Group("probe", 1, "mill", behave=probe)),
        wait_for_probes,
        counters_agree,
        options=("--max-in-flight", str(HOLDS), "--max-running", "1"),
    ),
    Scenario(
        "streams share a full server with others",
        one_mill,
        (
            Group("crowd", 2, "mill", scales=SCALES, required=OK_OR_FULL, behave=ask_many(EACH)),
            # A stream with nothing under way can be refused too, by a message.
            Group(
                "stream", 1, "mill", scales=SCALES, allowed=frozenset({"STREAM_ERROR"}), behave=stream_of(40)
            ),
        ),
        options=("--max-in-flight", str(HOLDS), "--max-running", "1"),
    ),
    Scenario(
        "deadlines are shorter than the queue",
        one_mill,
        (
            Group(
                "hurried",
                2,
                "mill",
                scales=SCALES,
                required=frozenset({"DEADLINE_EXCEEDED"}),
                allowed=OK_OR_FULL,
                behave=hurried(0.001, 0.020, 10),
            ),
            Group("patient", 2, "mill", scales=SCALES, behave=ask_many(4)),
        ),
        after=late_ones_were_not_run,
        options=("--max-running", "1"),
    ),
    Scenario(
        "a cheap variant helps out",
        heavy_and_light,
        (
            Group("crowd", 3, "mill", scales=SCALES, behave=ask_many(4)),
            Group("loyal", 1, "mill", "baseline", scales=SCALES),
        ),
        after=int8_helped_out,
        options=("--max-in-flight", "16", "--max-running", "1"),
    ),
    Scenario(
        "some requests go before others",
        two_levels,
        (
            Group("low", 2, "mill", scales=SCALES, priority=2, behave=ask_many(8)),
            Group("high", 1, "mill", scales=SCALES, priority=1),
        ),
        lambda stage: stage.await_more("high", 20),
        the_high_ones_wait_less,
        options=("--max-running", "1"),
    ),
)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=str)
def test_every_request_is_accounted_for_when(scenario: Scenario, tmp_path: Path) -> None:
    play(scenario, tmp_path)


def test_a_greedy_caller_leaves_room_for_the_others(tmp_path: Path) -> None:
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("greedy", "modest")}
    entries = [
        f"  - {{name: {name}, roles: [infer, observe], tokens_sha256: [{digest}]}}"
        for name, digest in digests.items()
    ]
    access = tmp_path / "access.yaml"
    access.write_text("callers:\n" + "\n".join(entries) + "\n")
    greedy = Group(
        "greedy",
        2,
        "mill",
        scales=SCALES,
        required=OK_OR_FULL,
        behave=ask_many(EACH),
        metadata=(("authorization", "Bearer greedy"),),
    )
    modest = Group("modest", 1, "mill", scales=SCALES, metadata=(("authorization", "Bearer modest"),))
    play(
        Scenario(
            "one caller is greedy",
            one_mill,
            (greedy, modest),
            lambda stage: stage.await_more("modest", 20),
            options=(
                *("--access", str(access), "--max-in-flight", str(HOLDS), "--max-running", "1"),
                *("--max-in-flight-per-client", str(HOLDS // 2)),
            ),
        ),
        tmp_path,
    )


# --- the end of a server under load ---

# A client such as any client can be, by its configuration alone (gRFC A6, A17).
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.02s",
                "maxBackoff": "0.2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
RETRYING = (("grpc.service_config", json.dumps(_SERVICE_CONFIG)),)


def test_a_client_that_tries_again_loses_nothing_as_its_servers_are_replaced(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    publish(repository, "mill", "baseline", SCALES["baseline"], HEAVY_STEPS // 8)
    options = ("--shutdown-delay-seconds", "0.1")
    everybody = (
        Group("crowd", 2, "mill", scales=SCALES, behave=ask_many(8), options=RETRYING),
        Group("one by one", 2, "mill", scales=SCALES, behave=ask, options=RETRYING),
    )
    with (
        serving(repository, *options, folder=tmp_path) as first,
        serving(repository, *options, folder=tmp_path) as second,
        Crowd(f"ipv4:{first.address},{second.address}", everybody, SEED) as crowd,
    ):
        for ledger in crowd.ledgers.values():
            assert ledger.await_more(100, PATIENCE_SECONDS)
        assert min(served.total("flyweight_requests_total") for served in (first, second)) > 0
        first.signal()
        assert first.wait() == 0
        for ledger in crowd.ledgers.values():
            assert ledger.await_more(100, PATIENCE_SECONDS)
        crowd.stop()
        crowd.check()
        assert first.tracebacks() + second.tracebacks() == []


def test_a_second_signal_ends_a_loaded_server_at_once(tmp_path: Path, slow_repository: Path) -> None:
    publish(slow_repository, "mill", "baseline", SCALES["baseline"], HEAVY_STEPS // 20)
    everybody = Group(
        "crowd", 2, "mill", scales=SCALES, required=frozenset({"OK", "UNAVAILABLE"}), behave=ask_gently
    )
    endless = pb.ModelInferRequest(model_name="slow")
    encode_inputs(endless, {"x": np.ones((1, 256), np.float32), "n": np.array([1_000_000_000], np.int64)})
    with (
        serving(slow_repository, folder=tmp_path) as served,
        grpc.insecure_channel(served.address) as channel,
        Crowd(served.address, (everybody,), SEED) as crowd,
    ):
        ledger = crowd.ledgers["crowd"]
        lost = channel.unary_unary(UNARY).future(endless.SerializeToString(), timeout=PATIENCE_SECONDS)
        eventually(
            lambda: served.total("flyweight_requests_in_flight", 'model="slow"'), lambda held: held == 1
        )
        assert ledger.await_more(50, PATIENCE_SECONDS)
        served.signal()
        assert ledger.await_that(lambda seen: seen.codes["UNAVAILABLE"] > 0, PATIENCE_SECONDS)
        assert served.is_alive()
        served.signal(signal.SIGINT)
        assert served.wait() == 1
        assert lost.code() is grpc.StatusCode.UNAVAILABLE
        crowd.stop()
        crowd.check()
        assert served.tracebacks() == []
