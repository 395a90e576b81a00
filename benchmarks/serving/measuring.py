"""Rounds of measurements: every contender takes its turn in every round, so a busy neighbour slows all."""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import onnxruntime

from benchmarks.serving.asking import NotServingError, ask
from benchmarks.serving.contenders import RAW, Contender, Running, start
from benchmarks.serving.generators import Generator, Sample
from benchmarks.serving.networks import Network, session_of
from benchmarks.serving.percentiles import percentile
from benchmarks.serving.processes import Memory, on_processors

_WARM_UP_SECONDS: Final = 0.5
_WARM_UP_RUNS: Final = 20


@dataclass(slots=True)
class Series:
    """What one contender came to with so many callers, round after round.

    `cpu_us` is the server's processor time per answer; `rates` are answers per second.
    """

    rates: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    load_cpu: list[float] = field(default_factory=list)
    errors: int = 0

    def add(self, sample: Sample, cpu_seconds: float) -> None:
        """Add a round."""
        self.rates.append(sample.answers / sample.seconds)
        self.cpu_us.append(cpu_seconds / max(1, sample.answers) * 1e6)
        self.p50_us.append(sample.p50_us)
        self.p99_us.append(sample.p99_us)
        self.load_cpu.append(sample.load_cpu_share)
        self.errors += sample.errors

    def ratio_to(self, other: "Series") -> float:
        """Return the median of the rounds' ratios of rates: a slow round is slow for both."""
        pairs = zip(self.rates, other.rates, strict=False)
        return statistics.median(mine / theirs for mine, theirs in pairs) if self.rates else 0.0


@dataclass(slots=True)
class Result:
    """Everything about one network: series by callers and title, memory by title, and who is missing why."""

    network: Network
    series: dict[int, dict[str, Series]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def of(self, callers: int, title: str) -> Series:
        """Return a series, made at first use."""
        return self.series.setdefault(callers, {}).setdefault(title, Series())


@dataclass(frozen=True, slots=True)
class Plan:
    """How is measured: how often, how long a turn, with how many callers, on which processors, by what."""

    rounds: int
    seconds: float
    callers: Sequence[int]
    server_processors: Collection[int]
    load_processors: Collection[int]
    generator: Generator
    folder: Path


def measure(network: Network, model: Path, entrants: Sequence[Contender], plan: Plan) -> Result:
    """Measure every entrant in turns."""
    result = Result(network)
    session = session_of(model)
    with contextlib.ExitStack() as stack:
        running: dict[str, Running] = {}
        for entrant in entrants:
            if entrant.missing:
                result.missing[entrant.title] = entrant.missing
            elif not plan.generator.takes(entrant.question):
                result.missing[entrant.title] = "HTTP: needs h2load (Debian: nghttp2-client)"
            elif not entrant.is_restless:
                _bring_up(entrant, plan, stack, running, result)
        for number in range(plan.rounds):
            _say(f"{network.name}: round {number + 1} of {plan.rounds}")
            _measure_raw(session, network, plan, result)
            for entrant in entrants:
                if entrant.title in running:
                    _measure_turn(running[entrant.title], plan, result)
                elif entrant.title not in result.missing:
                    with contextlib.ExitStack() as turn:
                        alone: dict[str, Running] = {}
                        _bring_up(entrant, plan, turn, alone, result)
                        for one in alone.values():
                            _measure_turn(one, plan, result)
    return result


def _bring_up(
    entrant: Contender, plan: Plan, stack: contextlib.ExitStack, running: dict[str, Running], result: Result
) -> None:
    """Start a server, have it ended with the stack, and let it settle under load."""
    _say(f"starting {entrant.title}")
    try:
        one = start(entrant, plan.folder, plan.server_processors)
    except NotServingError as error:
        result.missing[entrant.title] = f"did not start: {error}"
        return
    stack.callback(one.process.end)
    running[entrant.title] = one
    with on_processors(plan.load_processors):
        plan.generator.run(
            one.address, entrant.question, one.answer_bytes, max(plan.callers), _WARM_UP_SECONDS
        )


def _measure_raw(session: onnxruntime.InferenceSession, network: Network, plan: Plan, result: Result) -> None:
    """Let the session alone run for a turn, on the servers' processors, one run after the other."""
    x, times = network.sample(), list[float]()
    with on_processors(plan.server_processors):
        for _ in range(_WARM_UP_RUNS):
            session.run(None, {"x": x})
        began, cpu = time.perf_counter(), time.process_time()
        until = began + plan.seconds
        while (now := time.perf_counter()) < until:
            session.run(None, {"x": x})
            times.append(time.perf_counter() - now)
        elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    p50, p99 = (percentile(times, percent) * 1e6 for percent in (50, 99))
    for callers in plan.callers:
        result.of(callers, RAW).add(Sample(len(times), 0, elapsed, p50, p99, 0.0), cpu)


def _measure_turn(one: Running, plan: Plan, result: Result) -> None:
    """Load one server with every number of callers, and check its answers before and after."""
    title, question = one.contender.title, one.contender.question
    for callers in plan.callers:
        wrong = _wrong_answers(one)
        cpu = one.process.cpu_seconds()
        with on_processors(plan.load_processors):
            sample = plan.generator.run(one.address, question, one.answer_bytes, callers, plan.seconds)
        cpu = one.process.cpu_seconds() - cpu
        series = result.of(callers, title)
        series.add(sample, cpu)
        series.errors += wrong + _wrong_answers(one)
    result.memory[title] = one.process.memory()


def _wrong_answers(one: Running) -> int:
    try:
        return int(ask(one.address, one.contender.question) != one.answer_bytes)
    except NotServingError as error:
        _say(f"{one.contender.title}: {error}")
        return 1


def _say(what: str) -> None:
    """Tell whoever waits how far it is."""
    if os.isatty(2):
        print(f"\r\033[K{what}", end="", file=sys.stderr, flush=True)
    else:
        print(what, file=sys.stderr, flush=True)
