"""The experiment under live traffic: split it, hot-load a variant, change the split, and count everything."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from demo.errors import DemoError
from demo.metrics_scrape import Sample, scrape
from demo.server_process import RunningServer
from demo.split import Cast, write_split
from demo.task import IMAGE
from demo.traffic import Answer, Ask, Traffic, flowing, is_right
from flyweight.client import Client, Prediction, RetryPolicy, Settings
from flyweight.compressor.context import Progress
from flyweight.compressor.data import DataSet

CALLERS: Final = 2
# Generous: loading a small network takes a fraction of a second, also on a busy machine.
_SECONDS_TO_LOAD: Final = 60.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Experiment:
    """What the live part needs.

    Attributes:
        model: its name.
        folder: the model's folder in the repository that is served.
        held_back: the latecomer's folder, complete, on the same file system but outside the repository.
        cast: who takes part.
        data: samples to send, with labels.
        seconds: of traffic before the hot load, and again after it.
        seed: of the order of the samples.
    """

    model: str
    folder: Path
    held_back: Path
    cast: Cast
    data: DataSet
    seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Observed:
    """What happened; times are seconds since the traffic began.

    `published_at` is when the latecomer's folder appeared in the repository, `ready_at` when the server said
    that it serves it, `metrics` what the server counted by the end.
    """

    answers: tuple[Answer, ...]
    published_at: float
    ready_at: float
    seconds: float
    metrics: tuple[Sample, ...]


def run_experiment(experiment: Experiment, server: RunningServer, progress: Progress) -> Observed:
    """Run it against a server that serves all but the latecomer.

    Raises:
        DemoError: the server ended, or did not load the latecomer.
    """
    # A retry would hide a failed request, and here each one counts.
    settings = Settings(retry=RetryPolicy(max_attempts=1), timeout_seconds=10.0)
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.address, settings)) for _ in range(CALLERS + 1)]
        asks = [_ask(client, experiment) for client in clients[:CALLERS]]
        with flowing(asks, experiment.data.samples, experiment.seed) as traffic:
            published_at, ready_at = _play(experiment, server, clients[-1], traffic, progress)
        seconds = traffic.now()
    server.check()
    return Observed(tuple(traffic.answers), published_at, ready_at, seconds, scrape(server.metrics_url))


def _ask(client: Client, experiment: Experiment) -> Ask:
    def ask(index: int) -> tuple[Prediction, bool]:
        prediction = client.predict(experiment.model, experiment.data.rows(index, index + 1))
        return prediction, is_right(prediction, experiment.data, index)

    assert IMAGE in experiment.data.inputs, "the demo's networks have one input of this name"
    return ask


def _play(
    experiment: Experiment, server: RunningServer, client: Client, traffic: Traffic, progress: Progress
) -> tuple[float, float]:
    """Play the three acts: opening split, hot load, final split; return when it was published and ready."""
    latecomer = experiment.cast.latecomer
    _let_flow(
        experiment.seconds, server, traffic, _named(progress, "traffic, split between the first variants")
    )
    published_at = traffic.now()
    # One rename on one file system: the server sees the whole folder or none of it.
    experiment.held_back.rename(experiment.folder / latecomer)
    _wait(lambda: client.is_model_ready(experiment.model, latecomer), server, f"load {latecomer}")
    ready_at = traffic.now()
    write_split(experiment.folder, experiment.cast.final())
    _wait(lambda: _has_answered(traffic, latecomer), server, f"send traffic to {latecomer}")
    _let_flow(experiment.seconds, server, traffic, _named(progress, f"traffic, {latecomer} hot-loaded"))
    return published_at, ready_at


def _has_answered(traffic: Traffic, variant: str) -> bool:
    return any(answer.variant == variant for answer in traffic.answers[-200:])


def _let_flow(
    seconds: float, server: RunningServer, traffic: Traffic, progress: Callable[[int], None]
) -> None:
    """Let the callers work for so long, telling the progress in percent."""
    start = traffic.now()
    while (gone := traffic.now() - start) < seconds:
        server.check()
        progress(int(100 * gone / seconds))
        time.sleep(min(0.1, seconds - gone))
    progress(100)


def _named(progress: Progress, what: str) -> Callable[[int], None]:
    return lambda percent: progress(what, percent, 100)


def _wait(condition: Callable[[], bool], server: RunningServer, what: str) -> None:
    deadline = time.monotonic() + _SECONDS_TO_LOAD
    while not condition():
        server.check()
        if time.monotonic() > deadline:
            raise DemoError(
                f"The server did not {what} within {_SECONDS_TO_LOAD:g} s; its log is {server.log}."
            )
        time.sleep(_POLL_SECONDS)


def failures(answers: Sequence[Answer]) -> list[Answer]:
    """Return the requests that failed."""
    return [answer for answer in answers if answer.failure]
