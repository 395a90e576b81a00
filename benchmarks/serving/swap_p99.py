r"""p99 of a load while variants load, take over and unload under it, beside the p99 when nothing happens.

    python -m benchmarks.serving.swap_p99 --models mlp,resnet18-int8 [--rounds 5] [--seconds 6]

Calls come at a constant rate, a share of what the server reached in a first run, and their time counts from
when they were due. A round is a steady phase and one with a swap every --every seconds: a version is
published by rename, serves when it is ready, and the one before is taken away. The ratio is the median of the
rounds' ratios. "within" are the answers that were due while a swap was going on, beside all of the phase.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.serving.arriving import Versions
from benchmarks.serving.asking import Question, grpc_question
from benchmarks.serving.contenders import Contender, Running, flyweight_command, start
from benchmarks.serving.networks import NETWORKS, Network, answer_of, write
from benchmarks.serving.percentiles import percentile
from benchmarks.serving.processes import end_servers_on_sigterm
from flyweight.client import Client

_CALLERS: Final = 8
_CALIBRATION_SECONDS: Final = 3.0
_PATIENCE_SECONDS: Final = 120.0
_PREFERRED: Final = -10


@dataclass(slots=True)
class Phases:
    """The p99s of a network's rounds in seconds, and what else happened."""

    steady: list[float] = field(default_factory=list)
    changing: list[float] = field(default_factory=list)
    within: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    swaps: int = 0
    swap_seconds: list[float] = field(default_factory=list)
    answers: int = 0
    errors: dict[str, int] = field(default_factory=dict)


class Caller:
    """Runs the load generator against one server."""

    def __init__(self, running: Running, question: Question, folder: Path) -> None:
        self._running = running
        self._path = question.path
        self._body = folder / "body"
        self._body.write_bytes(question.body)
        self._log = folder / "log"

    def start(self, seconds: float, rate: float) -> subprocess.Popen[str]:
        """Start to ask."""
        options = ["--seconds", str(seconds), "--rate", str(rate), "--callers", str(_CALLERS)]
        command = [sys.executable, "-m", "benchmarks.serving.load", self._running.address, self._path]
        command += [str(self._body), *options, "--log", str(self._log)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        # A generator that waits for a processor measures itself; only root may prefer it.
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, process.pid, _PREFERRED)
        return process

    def end(self, process: subprocess.Popen[str]) -> tuple[dict[str, Any], list[tuple[float, float]]]:
        """Return what it saw in all, and when each answer was due and how long it took."""
        output, _ = process.communicate(timeout=_PATIENCE_SECONDS)
        lines = self._log.read_text(encoding="ascii").splitlines()
        answers = [(float(line.split()[0]), float(line.split()[1])) for line in lines]
        return json.loads(output), answers


def measure(network: Network, given: argparse.Namespace, work: Path) -> Phases:
    """Measure one network."""
    source = write(network, given.cache or work / "source")
    repository = work / "repository"
    repository.mkdir()
    versions = Versions(_near(source, work), repository, network.name)
    expected = answer_of(network, source)
    question = grpc_question(network, expected)
    options = ("--poll-seconds", "1", "--runtime", given.runtime, *given.server_option)
    contender = Contender("flyweight", flyweight_command(repository, *options), question)
    running = start(contender, work, os.sched_getaffinity(0))
    phases = Phases()
    try:
        caller = Caller(running, question, work)
        found, _ = caller.end(caller.start(_CALIBRATION_SECONDS, 0))
        rate = given.share * found["answers"] / found["seconds"]
        with Client(running.address) as client:
            # The first swap touches code and memory for the first time.
            versions.swap(client)
            for _ in range(given.rounds):
                _round(caller, versions, client, (rate, given.seconds, given.every), phases)
    finally:
        running.process.end()
    print(f"{network.name}: {rate:,.0f} calls a second, {given.share:.0%} of what it can")
    return phases


def _near(source: Path, work: Path) -> Path:
    """Return the file, copied next to the repository, so that it can be linked into it."""
    copy = work / "near.onnx"
    copy.write_bytes(source.read_bytes())
    return copy


def _round(
    caller: Caller, versions: Versions, client: Client, pace: tuple[float, float, float], phases: Phases
) -> None:
    rate, seconds, every = pace
    found, answers = caller.end(caller.start(seconds, rate))
    steady = percentile([time for _, time in answers], 99)
    _count(found, phases)
    process, windows = caller.start(seconds, rate), list[tuple[float, float]]()
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) + every < ends:
        versions.swap(client)
        windows.append((began, time.perf_counter()))
        time.sleep(max(0.0, began + every - time.perf_counter()))
    found, answers = caller.end(process)
    _count(found, phases)
    changing = percentile([time for _, time in answers], 99)
    within = [took for due, took in answers if any(first <= due <= last for first, last in windows)]
    phases.steady.append(steady)
    phases.changing.append(changing)
    phases.within.append(percentile(within, 99))
    phases.ratios.append(changing / steady)
    phases.swaps += len(windows)
    phases.swap_seconds += [last - first for first, last in windows]


def _count(found: dict[str, Any], phases: Phases) -> None:
    phases.answers += found["answers"]
    for status, count in found["failures"].items():
        phases.errors[status] = phases.errors.get(status, 0) + count


def show(network: Network, phases: Phases) -> None:
    """Print a network's line."""
    steady, changing, within = (
        statistics.median(values) * 1e3 for values in (phases.steady, phases.changing, phases.within)
    )
    print(
        f"{network.name}: p99 steady {steady:.2f} ms, with swaps {changing:.2f} ms, within {within:.2f} ms;"
        f" ratio {statistics.median(phases.ratios):.2f}; {phases.swaps} swaps of"
        f" {statistics.median(phases.swap_seconds):.2f} s; {phases.answers} answers,"
        f" {sum(phases.errors.values())} errors {dict(phases.errors) or ''}",
        flush=True,
    )


def main() -> None:
    """Measure every network that was asked for."""
    end_servers_on_sigterm()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["mlp", "resnet18-int8"])
    parser.add_argument("--runtime", choices=("inline", "process"), default="inline")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each phase")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from swap to swap")
    parser.add_argument("--share", type=float, default=0.5, help="of what the server can, as load")
    parser.add_argument("--server-option", action="append", default=[], help="of flyweight serve, as --x=y")
    parser.add_argument("--cache", type=Path, help="folder in which networks are kept between runs")
    given = parser.parse_args()
    for name in given.models:
        with tempfile.TemporaryDirectory(prefix="flyweight-bench-") as work:
            show(NETWORKS[name], measure(NETWORKS[name], given, Path(work)))


if __name__ == "__main__":
    main()
