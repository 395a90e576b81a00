"""What metrics cost: two servers side by side, one of which records nothing, asked in turns.

Both serve the network that costs least (784-300-100-10), so that what a request costs besides is as large as
it gets. Printed is the processor time of the server's process for a request (/proc/<pid>/schedstat) and the
requests a second, in short blocks that take turns, the median of the blocks' ratios with the quartiles, and
what recording one request takes by itself, which is the steadier figure.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import timeit
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from flyweight.client import Client, Settings
from flyweight.server.app import Server
from flyweight.server.metrics import Metrics
from flyweight.server.metrics.requests import RequestMetrics
from flyweight.server.rpc.records import Answerer, Record, Recorders
from flyweight.server.rpc.statistics import Statistics
from flyweight.server.settings import ServerSettings
from memory_models import row, write

CALLERS = 8


@dataclass(frozen=True)
class Served:
    """A server: its process and its address."""

    pid: int
    address: str

    def cpu_seconds(self) -> float:
        """Return the processor time that all of its threads used, in seconds."""
        tasks = Path(f"/proc/{self.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def main() -> None:
    """Measure and print."""
    arguments = parse()
    if arguments.child:
        serve(arguments.child, records=not arguments.without)
        return
    alone = recording_microseconds()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write("mlp", Path(folder) / "mlp" / "1" / "model.onnx")
        servers = [stack.enter_context(child(folder, *extra)) for extra in ((), ("--without",))]
        clients = [
            stack.enter_context(Client(each.address, Settings(timeout_seconds=60))) for each in servers
        ]
        for client in clients:
            ask(client, arguments.requests)
        pairs = list(zip(servers, clients, strict=True))
        blocks = []
        for turn in range(arguments.blocks):
            # Whoever comes second finds the machine warm; they take turns at that too.
            done = {index: block(*pairs[index], arguments.requests) for index in (turn % 2, 1 - turn % 2)}
            blocks.append([done[0], done[1]])
    report(blocks, alone)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=400, help="in a block")
    parser.add_argument("--blocks", type=int, default=80)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def recording_microseconds() -> float:
    """Return what begin, record and end take together, in the metrics and in ModelStatistics."""
    answerer = Answerer("mlp", "1", "baseline")
    record = Record(answerer=answerer, rows=1, batch_rows=8, batch_requests=8, leads_run=True)
    record.decode_seconds, record.queue_seconds, record.run_seconds = 3e-5, 1e-3, 2e-5
    record.encode_seconds, record.total_seconds = 1e-5, 1.1e-3
    # Statistics asks nobody for models while it records.
    recorder = Recorders(Metrics().requests, (Statistics(models=None),))  # type: ignore[arg-type]

    def once() -> None:
        recorder.begin(answerer)
        recorder.record(record)
        recorder.end(answerer)

    count = 20_000
    return min(timeit.repeat(once, number=count, repeat=7)) / count * 1e6


def serve(repository: Path, *, records: bool) -> None:
    """Serve until standard input ends."""
    if not records:
        for kind in (RequestMetrics, Statistics):
            for name in ("begin", "end", "record"):
                setattr(kind, name, lambda *_: None)
    server = Server(ServerSettings(repository, port=0, metrics_port=0, measure_memory=False))
    print(server.start().address, flush=True)
    sys.stdin.read()
    server.stop(at_once=True)


@contextmanager
def child(repository: str, *extra: str) -> Iterator[Served]:
    """Run a server in a process of its own."""
    command = [sys.executable, __file__, "--child", repository, *extra]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        yield Served(process.pid, process.stdout.readline().strip())
        process.stdin.close()


def block(server: Served, client: Client, requests: int) -> tuple[float, float]:
    """Ask, and return the microseconds of the server's processor a request, and the requests a second."""
    before, began = server.cpu_seconds(), perf_counter()
    ask(client, requests)
    seconds = perf_counter() - began
    return (server.cpu_seconds() - before) / requests * 1e6, requests / seconds


def ask(client: Client, requests: int) -> None:
    """Ask from several threads, and wait for all answers."""
    inputs = {"x": row("mlp")}

    def some() -> None:
        for _ in range(requests // CALLERS):
            client.predict("mlp", inputs)

    callers = [threading.Thread(target=some) for _ in range(CALLERS)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()


def report(blocks: list[list[tuple[float, float]]], alone: float) -> None:
    """Print medians, and the medians of the ratios within each pair of blocks."""
    print(f"{'':14s}{'CPU us a request':>18s}{'requests/s':>12s}")
    for index, name in enumerate(("recording", "not recording")):
        cpu, rate = (statistics.median(pair[index][kind] for pair in blocks) for kind in (0, 1))
        print(f"{name:14s}{cpu:18.1f}{rate:12.0f}")
    for kind, name in enumerate(("CPU", "rate")):
        low, middle, high = statistics.quantiles([pair[0][kind] / pair[1][kind] for pair in blocks], n=4)
        print(f"{name:4s} with / without: {middle:.3f} ({low:.3f} to {high:.3f})")
    cpu = statistics.median(pair[0][0] for pair in blocks)
    print(f"recording by itself: {alone:.2f} us a request, {alone / cpu:.1%} of it")


if __name__ == "__main__":
    main()
