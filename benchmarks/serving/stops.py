r"""A server is told to stop (SIGTERM) under load, again and again: whatever it took it must answer.

    python -m benchmarks.serving.stops [--stops 20] [--runtime process] [--delay 2]

There is one server and no other to go to, and no call is sent again, so each caller ends with its first call
that is refused: UNAVAILABLE, which says that it may be sent elsewhere. Lost is a call that ended in any other
way, that the server answered (its access log says so) while the caller was told otherwise, or that the server
took and gave up (its exit code is then not 0).
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from benchmarks.serving.asking import Question, grpc_question
from benchmarks.serving.contenders import Contender, Running, flyweight_command, start
from benchmarks.serving.networks import NETWORKS, answer_of, write
from benchmarks.serving.processes import end_servers_on_sigterm

_STOP_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 20.0
# As long as callers ask before the server is told to stop.
_LOAD_SECONDS: Final = 1.0
_CALLERS_OF_A_CHANNEL: Final = 8
_CHANNEL: Final = (("grpc.use_local_subchannel_pool", 1),)
_ANSWERED: Final = "method=ModelInfer code=OK"


@dataclass(slots=True)
class Outcome:
    """What became of the calls.

    Attributes:
        answered: calls.
        inside: of these, those that had begun when the server was told, and had no answer yet.
        refused: calls, by why.
        lost: calls, by what their callers were told.
        unheard: answers that the server gave and no caller has.
        codes: exit codes of the server.
    """

    answered: int = 0
    inside: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    lost: Counter[str] = field(default_factory=Counter)
    unheard: int = 0
    codes: Counter[int] = field(default_factory=Counter)

    @property
    def is_whole(self) -> bool:
        """Tell whether nothing was lost."""
        return not self.lost and not self.unheard and set(self.codes) == {0}

    def __str__(self) -> str:
        """Return the line of the table."""
        return (
            f"{self.codes.total()} stops (exit codes {dict(self.codes)}): {self.answered} answers,"
            f" {self.inside} of them to calls that were under way at the signal,"
            f" {self.refused.total()} refused, {self.lost.total() + self.unheard} lost"
        )


class _Callers:
    """Ask until they are refused. For one loop's thread."""

    def __init__(self, question: Question, outcome: Outcome) -> None:
        self._question = question
        self._outcome = outcome
        self._is_told = False
        self._under_way: set[int] = set()
        self._inside: set[int] = set()

    def note_the_signal(self) -> None:
        """Remember who waits for an answer as the server is told to stop."""
        self._inside = set(self._under_way)

    async def ask(self, channel: grpc.aio.Channel, caller: int) -> None:
        """Ask until one call has no answer."""
        infer = channel.unary_unary(self._question.path, None, None)
        while True:
            self._under_way.add(caller)
            try:
                await infer(self._question.body, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                self._end(error)
                return
            finally:
                self._under_way.discard(caller)
            self._outcome.answered += 1
            self._outcome.inside += caller in self._inside
            self._inside.discard(caller)

    def _end(self, error: grpc.aio.AioRpcError) -> None:
        is_refused = error.code() is grpc.StatusCode.UNAVAILABLE
        ends = self._outcome.refused if is_refused else self._outcome.lost
        ends[f"{error.code().name}: {error.details()}"] += 1


async def stop_under_load(
    running: Running, outcome: Outcome, count: int, load_seconds: float = _LOAD_SECONDS
) -> None:
    """Let callers ask, tell the server to stop, and wait until nobody asks any more."""
    callers = _Callers(running.contender.question, outcome)
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(running.address, _CHANNEL))
            for _ in range(-(-count // _CALLERS_OF_A_CHANNEL))
        ]
        asking = [
            asyncio.create_task(callers.ask(channels[caller // _CALLERS_OF_A_CHANNEL], caller))
            for caller in range(count)
        ]
        await asyncio.sleep(load_seconds)
        callers.note_the_signal()
        running.process.terminate()
        await asyncio.gather(*asking)


def stop_again_and_again(given: argparse.Namespace, folder: Path) -> Outcome:
    """Start and stop servers; return what became of the calls."""
    network = NETWORKS[given.model]
    model = write(network, folder / "repository")
    question = grpc_question(network, answer_of(network, model))
    options = ("--runtime", given.runtime, "--shutdown-delay-seconds", str(given.delay), "--access-log")
    contender = Contender("flyweight", flyweight_command(model.parents[2], *options), question)
    outcome = Outcome()
    for _ in range(given.stops):
        running = start(contender, folder, os.sched_getaffinity(0))
        before = outcome.answered
        try:
            asyncio.run(stop_under_load(running, outcome, given.callers))
            outcome.codes[running.process.wait(_STOP_SECONDS)] += 1
        finally:
            running.process.end()
        # The first answer was to whoever waited for the server.
        outcome.unheard += _answers_of(running.process.log) - 1 - (outcome.answered - before)
    return outcome


def _answers_of(log: Path) -> int:
    return log.read_text(encoding="utf-8").count(_ANSWERED)


def main() -> None:
    """Stop servers, and print."""
    end_servers_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stops", type=int, default=20)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--model", choices=tuple(NETWORKS), default="convnet")
    parser.add_argument("--runtime", choices=("inline", "process"), default="inline")
    parser.add_argument("--delay", type=float, default=0.0, help="of the shutdown, seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="flyweight-bench-") as folder:
        outcome = stop_again_and_again(given, Path(folder))
    print(outcome)
    for what, number in [*outcome.refused.items(), *outcome.lost.items()]:
        print(f"{number:6} {what}")
    sys.exit(not outcome.is_whole)


if __name__ == "__main__":
    main()
