"""Calls without a pause from clients that send again what was not taken, until they are told to stop."""

import asyncio
import json
import subprocess
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from tests.contract.clients.conversation import INFERENCE, PATIENCE_SECONDS

SCRIPT: Final = Path(__file__).with_name("loading.js")
CALLERS: Final = 16
# Enough that every server was asked.
WARM_ANSWERS: Final = 200
PATH: Final = f"{INFERENCE}/ModelInfer"
SERVICE_CONFIG: Final = json.dumps(
    {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
    }
)
OPTIONS: Final = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", SERVICE_CONFIG)]


@dataclass
class Heard:
    """How many calls were answered, and what became of the others. Thread-safe."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def note(self, answered: int, *failures: str) -> None:
        """Add calls that ended."""
        with self.changed:
            self.answered += answered
            self.failures += failures
            self.changed.notify_all()

    def await_more(self, count: int) -> None:
        """Wait until so many more calls ended."""
        with self.changed:
            until = self._ended() + count
            assert self.changed.wait_for(lambda: self._ended() >= until, PATIENCE_SECONDS)

    def _ended(self) -> int:
        return self.answered + len(self.failures)


class Load(Protocol):
    """Asks all of `targets` for the answer to `body`, and notes what it heard, until `is_over`."""

    def __call__(
        self, targets: Sequence[str], body: bytes, heard: Heard, is_over: threading.Event, /
    ) -> None:
        """Go on until `is_over`, and return when the last call has ended."""
        ...


def by_grpcio(targets: Sequence[str], body: bytes, heard: Heard, is_over: threading.Event) -> None:
    """Ask by threads."""
    with grpc.insecure_channel("ipv4:" + ",".join(targets), OPTIONS) as channel:

        def ask_on() -> None:
            call: Any = channel.unary_unary(PATH, None, None)
            while not is_over.is_set():
                try:
                    call(body, timeout=PATIENCE_SECONDS)
                    heard.note(1)
                except grpc.RpcError as error:
                    heard.note(0, str(error))

        threads = [threading.Thread(target=ask_on) for _ in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def by_grpc_aio(targets: Sequence[str], body: bytes, heard: Heard, is_over: threading.Event) -> None:
    """Ask by tasks."""

    async def ask_on(channel: grpc.aio.Channel) -> None:
        call: Any = channel.unary_unary(PATH, None, None)
        while not is_over.is_set():
            try:
                await call(body, timeout=PATIENCE_SECONDS)
                heard.note(1)
            except grpc.RpcError as error:
                heard.note(0, str(error))

    async def ask_all() -> None:
        async with grpc.aio.insecure_channel("ipv4:" + ",".join(targets), OPTIONS) as channel:
            await asyncio.gather(*(ask_on(channel) for _ in range(CALLERS)))

    asyncio.run(ask_all())


def by_node(node: str) -> Callable[[Sequence[str], bytes, Heard, threading.Event], None]:
    """Return a load by grpc-js in a process, which ends when its input does."""

    def ask(targets: Sequence[str], body: bytes, heard: Heard, is_over: threading.Event) -> None:
        question = {
            "target": "ipv4:" + ",".join(targets),
            "path": PATH,
            "body": body.hex(),
            "callers": CALLERS,
            "timeoutSeconds": PATIENCE_SECONDS,
            "serviceConfig": SERVICE_CONFIG,
        }
        with subprocess.Popen(
            [node, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            # Each line is what came of one call: nothing, or how it failed.
            for line in process.stdout:
                heard.note(1) if line == "\n" else heard.note(0, line)
                if is_over.is_set() and not process.stdin.closed:
                    process.stdin.close()
            assert process.wait(PATIENCE_SECONDS) == 0

    return ask
