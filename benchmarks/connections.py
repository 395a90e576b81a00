r"""Many connections to one server, over each transport: what they cost, and whether any call is lost.

    python -m benchmarks.connections [--transports grpcio wire] [--json]

Three things are measured of each server, which serves an MLP of 20 us on a processor of its own where there
are two:

- idle: so many connections are opened, with HTTP/2's settings exchanged and nothing asked, and then as many
  more. Printed is what each of the latter added to the server's RSS: the former fill what start-up left free.
  What the kernel keeps for a socket is in nobody's RSS.
- churn: connections are opened in waves, asked one call each, and dropped, every other by a reset. Printed is
  the server's RSS and its open files after the first tenth, when pools have filled, and after the last, both
  once they stay as they are; what grew is divided by the connections between.
- busy: so many connections again, on each of which so many calls are kept under way for some seconds:
  requests/s, errors, and latencies, of which the mean follows from the rate (calls under way / rate), and
  p99 / mean tells whether connections are treated alike. With 1,000 connections and 4 calls each it should
  be at most 3.

Every answer's grpc-status is looked at; a call or a connection that fails is an error (exit code 1). Both
ends need a file for each connection: the limit on open files is raised as far as it may be, and a wave is as
large as fits. Rates and latencies mean something only on a machine that does nothing else; bytes do on any.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from benchmarks.serving.asking import grpc_question
from benchmarks.serving.callers import Caller, Round, drop, open_callers
from benchmarks.serving.contenders import Contender, Running, flyweight_command, start
from benchmarks.serving.networks import NETWORKS, answer_of, write
from benchmarks.serving.percentiles import percentile
from benchmarks.serving.processes import end_servers_on_sigterm, on_processors

TRANSPORTS: Final = ("grpcio", "wire")
_PATIENCE_SECONDS: Final = 60.0
_WARM_UP_CALLS: Final = 8
_WARM_UP_SECONDS: Final = 2.0
# Memory stays as it is when it changed by less than this from one look to the next.
_LOOK_SECONDS: Final = 1.0
_STILL_BYTES: Final = 256 << 10
_MOST_LOOKS: Final = 15
# Of open files, what is not for connections.
_SPARE_FILES: Final = 256


@dataclass(frozen=True, slots=True)
class Idle:
    """What connections cost that do nothing."""

    connections: int
    rss_bytes_per_connection: float


@dataclass(frozen=True, slots=True)
class Churn:
    """What connections leave behind."""

    connections: int
    errors: int
    rss_bytes_before: int
    rss_bytes_after: int
    rss_bytes_per_connection: float
    files_before: int
    files_after: int


@dataclass(frozen=True, slots=True)
class Busy:
    """What became of the calls on many connections at one time; `failures` by grpc-status."""

    calls_under_way: int
    answers: int
    failures: dict[str, int]
    requests_per_second: float
    mean_ms: float
    p50_ms: float
    p99_ms: float
    p99_to_mean: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything about one transport."""

    idle: Idle
    churn: Churn
    busy: Busy

    @property
    def errors(self) -> int:
        """Return how many calls and connections failed."""
        return sum(self.busy.failures.values()) + self.churn.errors


# A line of the table: its title, and what it says of a transport.
Row = tuple[str, Callable[[Figures], str]]


async def measure(running: Running, given: argparse.Namespace) -> Figures:
    """Measure one server; what leaves memory behind for a while comes last."""
    await _keep_busy(running, 1, _WARM_UP_CALLS, _WARM_UP_SECONDS)
    idle = await _measure_idle(running, given)
    churn = await _measure_churn(running, given)
    return Figures(idle, churn, await _keep_busy(running, given.connections, given.in_flight, given.seconds))


async def _measure_idle(running: Running, given: argparse.Namespace) -> Idle:
    """Measure connections that do nothing."""
    found = Round()
    first = await open_callers(running, given.connections, found.end)
    before = await _settled_rss(running)
    others = await open_callers(running, given.connections, found.end)
    added = await _settled_rss(running) - before
    drop([*first, *others])
    return Idle(given.connections, added / given.connections)


async def _keep_busy(running: Running, connections: int, in_flight: int, seconds: float) -> Busy:
    """Keep so many calls under way on each of so many connections."""
    found = Round()
    callers = await open_callers(running, connections, found.end)
    await found.run(callers, in_flight, seconds)
    drop(callers)
    mean = sum(found.seconds) / max(1, len(found.seconds))
    p99 = percentile(found.seconds, 99)
    return Busy(
        connections * in_flight,
        len(found.seconds),
        dict(found.failures),
        len(found.seconds) / found.elapsed_seconds,
        1e3 * mean,
        1e3 * percentile(found.seconds, 50),
        1e3 * p99,
        p99 / mean if mean else 0.0,
    )


async def _measure_churn(running: Running, given: argparse.Namespace) -> Churn:
    """Open and drop connections in waves."""
    wave = min(given.wave, given.churn)
    first = max(wave, given.churn // 10)
    errors = await _churn(running, first, wave)
    before, files_before = await _settled_rss(running), _files(running)
    errors += await _churn(running, given.churn - first, wave)
    after = await _settled_rss(running)
    grown = (after - before) / max(1, given.churn - first)
    return Churn(given.churn, errors, before, after, grown, files_before, _files(running))


async def _churn(running: Running, count: int, wave: int) -> int:
    """Open so many connections, ask each once, drop it; return how many failed."""
    errors = 0
    for at in range(0, count, wave):
        size = min(wave, count - at)
        answered = asyncio.Semaphore(0)
        statuses: list[str] = []

        def on_end(_caller: Caller, status: str, _seconds: float) -> None:
            statuses.append(status)  # noqa: B023 - waited for before the next wave
            answered.release()  # noqa: B023

        callers = await open_callers(running, size, on_end)
        for caller in callers:
            caller.begin()
        for _ in callers:
            await asyncio.wait_for(answered.acquire(), _PATIENCE_SECONDS)
        errors += sum(status != "0" for status in statuses)
        drop(callers[::2])
        drop(callers[1::2], by_reset=True)
    return errors


async def _settled_rss(running: Running) -> int:
    """Return the server's RSS in bytes once it stays as it is."""
    before = _rss(running)
    for _ in range(_MOST_LOOKS):
        await asyncio.sleep(_LOOK_SECONDS)
        now = _rss(running)
        if abs(now - before) < _STILL_BYTES:
            return now
        before = now
    return before


def _rss(running: Running) -> int:
    return round(running.process.memory().rss_megabytes * 1e6)


def _files(running: Running) -> int:
    return len(os.listdir(f"/proc/{running.process.pid}/fd"))  # noqa: PTH208 - a Path opens one itself


def fit_open_files(connections: int, wave: int) -> int:
    """Raise the limit on open files as far as it may be; return how large a wave may be.

    Raises:
        SystemExit: it is too low for the connections that are to be open at one time.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # The server takes connections up to half of its files.
    room = most // 2 - _SPARE_FILES
    if connections > room:
        raise SystemExit(
            f"{most} open files are enough for {room} connections; raise the limit (ulimit -Hn)."
        )
    return min(wave, room)


def show(found: dict[str, Figures]) -> None:
    """Print the table."""
    one = next(iter(found.values()))
    rows: list[Row] = [
        (
            f"{one.idle.connections} idle: RSS a connection, KB",
            lambda each: f"{each.idle.rss_bytes_per_connection / 1024:.1f}",
        ),
        (f"{one.churn.connections} opened and dropped: errors", lambda each: f"{each.churn.errors}"),
        ("  RSS before, MB", lambda each: f"{each.churn.rss_bytes_before / 1e6:.1f}"),
        ("  RSS after, MB", lambda each: f"{each.churn.rss_bytes_after / 1e6:.1f}"),
        ("  grown a connection, bytes", lambda each: f"{each.churn.rss_bytes_per_connection:.0f}"),
        (
            "  open files before and after",
            lambda each: f"{each.churn.files_before}, {each.churn.files_after}",
        ),
        (
            f"{one.busy.calls_under_way} calls under way: requests/s",
            lambda each: f"{each.busy.requests_per_second:,.0f}",
        ),
        ("  errors", lambda each: f"{sum(each.busy.failures.values())}"),
        ("  mean, ms", lambda each: f"{each.busy.mean_ms:.0f}"),
        ("  p50, ms", lambda each: f"{each.busy.p50_ms:.0f}"),
        ("  p99, ms", lambda each: f"{each.busy.p99_ms:.0f}"),
        ("  p99 / mean", lambda each: f"{each.busy.p99_to_mean:.2f}"),
    ]
    print(f"{'':42}" + "".join(f"{name:>12}" for name in found))
    for title, value in rows:
        print(f"{title:42}" + "".join(f"{value(figures):>12}" for figures in found.values()))


def _measure_transports(given: argparse.Namespace) -> dict[str, Figures]:
    processors = sorted(os.sched_getaffinity(0))
    network = NETWORKS["mlp"]
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as folder:
        model = write(network, Path(folder) / "repository")
        question = grpc_question(network, answer_of(network, model))
        # As many as will be under way, and the others' calls beside them.
        inside = ("--max-in-flight", str(given.connections * given.in_flight + given.wave))
        for transport in given.transports:
            command = flyweight_command(model.parents[2], "--transport", transport, *inside)
            running = start(Contender(transport, command, question), Path(folder), processors[:1])
            try:
                with on_processors(processors[1:] or processors):
                    found[transport] = asyncio.run(measure(running, given))
            finally:
                running.process.end()
    return found


def main() -> None:
    """Measure, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument("--connections", type=int, default=1000, help="open at one time, idle and then busy")
    parser.add_argument("--in-flight", type=int, default=4, help="calls under way on each of them")
    parser.add_argument("--seconds", type=float, default=10.0, help="for which they are busy")
    parser.add_argument("--churn", type=int, default=10_000, help="connections to open and drop")
    parser.add_argument("--wave", type=int, default=500, help="of these, open at one time")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    given = parser.parse_args()
    end_servers_on_sigterm()
    given.wave = fit_open_files(2 * given.connections, given.wave)
    found = _measure_transports(given)
    if given.json:
        print(json.dumps({name: asdict(figures) for name, figures in found.items()}))
    else:
        show(found)
    sys.exit(1 if any(figures.errors for figures in found.values()) else 0)


if __name__ == "__main__":
    main()
