r"""Two replicas are stopped (SIGTERM) and started again in turns, under load: no request may be lost.

    python -m benchmarks.serving.rolling [--restarts 10] [--envoy PROGRAM]

Without --envoy the clients are stock gRPC clients with round_robin over both replicas and gRPC's own retries
of UNAVAILABLE. With it they know one address, Envoy's, and send nothing twice; Envoy balances, asks for
health, and retries. Replicas keep going for a moment after SIGTERM (--shutdown-delay-seconds).
"""

import argparse
import asyncio
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from benchmarks.serving.asking import Question, await_answer, grpc_question
from benchmarks.serving.contenders import flyweight_command
from benchmarks.serving.networks import NETWORKS, answer_of, write
from benchmarks.serving.processes import Process, end_servers_on_sigterm, free_port

_START_SECONDS: Final = 60.0
_STOP_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 20.0
# Envoy asks every second, and needs one good answer to send work.
_SETTLE_SECONDS: Final = 2.5
_RETRIES: Final = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.02s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)


class Callers:
    """Ask until they are told to stop, in a thread with a loop of its own; `stop` ends it."""

    def __init__(self, target: str, question: Question, count: int, *, retries: bool) -> None:
        self.outcomes: Counter[str] = Counter()
        self._is_stopping = False
        self._target = target
        self._question = question
        self._count = count
        config = ("grpc.service_config", _RETRIES)
        self._options = [("grpc.enable_retries", int(retries)), *([config] if retries else [])]
        self._thread = threading.Thread(target=lambda: asyncio.run(self._ask_all()), name="callers")
        self._thread.start()

    def stop(self) -> Counter[str]:
        """Return how many calls ended with which status."""
        self._is_stopping = True
        self._thread.join()
        return self.outcomes

    async def _ask_all(self) -> None:
        async with grpc.aio.insecure_channel(self._target, self._options) as channel:
            await asyncio.gather(*(self._ask(channel) for _ in range(self._count)))

    async def _ask(self, channel: grpc.aio.Channel) -> None:
        infer = channel.unary_unary(self._question.path, None, None)
        while not self._is_stopping:
            try:
                await infer(self._question.body, timeout=_CALL_SECONDS)
                self.outcomes["OK"] += 1
            except grpc.aio.AioRpcError as error:
                self.outcomes[f"{error.code().name}: {error.details()}"] += 1


class Replica:
    """A server on a port that stays the same."""

    def __init__(self, repository: Path, question: Question, folder: Path, delay: float) -> None:
        self.port = free_port()
        delays = ("--shutdown-delay-seconds", str(delay))
        command = flyweight_command(repository, *delays)
        self._command = [word.format(port=self.port) for word in command]
        self._question = question
        self._log = folder / f"{self.port}.log"
        self._process = self._start()

    def restart(self) -> int:
        """Stop it as a platform does, and start its successor; return the exit code."""
        self._process.terminate()
        code = self._process.wait(_STOP_SECONDS)
        self._process = self._start()
        return code

    def end(self) -> None:
        """End it."""
        self._process.end()

    def _start(self) -> Process:
        process = Process(self._command, self._log)
        await_answer(f"127.0.0.1:{self.port}", self._question, _START_SECONDS, lambda: process.has_ended)
        return process


def envoy_config(port: int, backends: list[int]) -> str:
    """Return a configuration of Envoy that balances, asks for health, and retries what never arrived."""
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": backend}}}}
        for backend in backends
    ]
    http2 = {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
    }
    check = {
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "unhealthy_threshold": 1,
        "healthy_threshold": 1,
        "grpc_health_check": {},
    }
    cluster = {
        "name": "replicas",
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": http2,
        "health_checks": [check],
        "load_assignment": {"cluster_name": "replicas", "endpoints": [{"lb_endpoints": endpoints}]},
    }
    retry = {"retry_on": "unavailable,reset,connect-failure,refused-stream", "num_retries": 3}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "replicas", "timeout": "0s", "retry_policy": retry},
    }
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = {
        "@type": f"type.googleapis.com/{kind}",
        "stat_prefix": "in",
        "codec_type": "AUTO",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    listener = {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }
    return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})


def roll(given: argparse.Namespace, folder: Path) -> tuple[Counter[str], list[int]]:
    """Restart in turns under load; return how calls ended, and the exit codes."""
    network = NETWORKS["mlp"]
    model = write(network, folder / "repository")
    expected = answer_of(network, model)
    question = grpc_question(network, expected)
    replicas = [Replica(model.parents[2], question, folder, given.delay) for _ in range(2)]
    ports = [replica.port for replica in replicas]
    envoy, target = None, "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    codes: list[int] = []
    try:
        if given.envoy:
            port = free_port()
            (folder / "envoy.json").write_text(envoy_config(port, ports), encoding="utf-8")
            options = ["--disable-hot-restart", "--concurrency", "1", "-l", "error"]
            envoy = Process([given.envoy, "-c", folder / "envoy.json", *options], folder / "envoy.log")
            target = f"127.0.0.1:{port}"
            await_answer(target, question, _START_SECONDS, lambda: envoy is not None and envoy.has_ended)
        callers = Callers(target, question, given.callers, retries=envoy is None)
        try:
            for number in range(given.restarts):
                time.sleep(_SETTLE_SECONDS)
                codes.append(replicas[number % 2].restart())
            time.sleep(_SETTLE_SECONDS)
        finally:
            outcomes = callers.stop()
    finally:
        for replica in replicas:
            replica.end()
        if envoy is not None:
            envoy.end()
    return outcomes, codes


def main() -> None:
    """Roll, and print."""
    end_servers_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--delay", type=float, default=2.0, help="of the shutdown, seconds")
    parser.add_argument("--envoy", help="Envoy's program")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyweight-bench-") as folder:
        outcomes, codes = roll(given, Path(folder))
    lost = outcomes.total() - outcomes["OK"]
    print(f"{len(codes)} restarts (exit codes {dict(Counter(codes))}): {outcomes['OK']} answers, {lost} lost")
    for what, count in outcomes.items():
        if what != "OK":
            print(f"{count:6} {what}")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
