"""What metrics and tracing cost: servers side by side, one of which records nothing, asked in turns.

All serve the network that costs least (784-300-100-10), so that what a request costs besides is as large as
it gets. Printed is the processor time of the server's process for a request (/proc/<pid>/schedstat) and the
requests a second, in short blocks that take turns, the median of the blocks' ratios to the server that
records nothing with the quartiles, and what recording one request takes by itself, which is the steadier
figure: with tracing off, as it is by default, on at its default rate, and on for every request.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import threading
import timeit
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import grpc

from flyweight.client import Client, Settings
from flyweight.protos.inference.grpc_service_pb2 import TraceSettingRequest
from flyweight.server.app import Server
from flyweight.server.metrics import Metrics
from flyweight.server.rpc.call_counts import CallCounts
from flyweight.server.rpc.records import Answerer, Record
from flyweight.server.rpc.tallies import Tallies
from flyweight.server.rpc.trace_settings import TraceLevel
from flyweight.server.rpc.tracer import Tracer
from flyweight.server.settings import ServerSettings
from memory_models import row, write

CALLERS = 8
PATH = "/inference.GRPCInferenceService/ModelInfer"
TRACE_SETTING = "/inference.GRPCInferenceService/TraceSetting"
# One of so many requests is traced: Triton's default and ours, and all of them.
TRACE_RATES = (1000, 1)
NOT_RECORDING, RECORDING = "not recording", "recording"
# What each server is started with besides.
KINDS = {
    NOT_RECORDING: ("--without",),
    RECORDING: (),
    **{f"and tracing 1 in {rate}": (f"--trace-rate={rate}",) for rate in TRACE_RATES},
}


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
        serve(arguments)
        return
    alone = {rate: recording_microseconds(rate) for rate in (0, *TRACE_RATES)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        write("mlp", Path(folder) / "mlp" / "1" / "model.onnx")
        servers = [stack.enter_context(child(folder, *extra)) for extra in KINDS.values()]
        clients = [
            stack.enter_context(Client(each.address, Settings(timeout_seconds=60))) for each in servers
        ]
        for client in clients:
            ask(client, arguments.requests)
        pairs = list(zip(servers, clients, strict=True))
        # Whoever comes second finds the machine warm; they take turns at that too.
        order = deque(range(len(pairs)))
        blocks = []
        for _ in range(arguments.blocks):
            order.rotate(1)
            done = {index: block(*pairs[index], arguments.requests) for index in order}
            blocks.append([done[index] for index in range(len(pairs))])
    report(blocks, alone)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--requests", type=int, default=400, help="in a block")
    parser.add_argument("--blocks", type=int, default=80)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--without", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--trace-rate", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args()


class Nowhere:
    """Takes traces, and writes none: the thread that writes them is not the request's."""

    def add(self, file: str, trace: bytes) -> None:
        """Forget it."""


def recording_microseconds(trace_rate: int) -> float:
    """Return what is done for each request to count, time and, at a rate other than 0, trace it."""
    answerer = Answerer("mlp", "1", "baseline")
    record = Record(answerer=answerer, rows=1, batch_rows=8, batch_requests=8, leads_run=True)
    record.decode_seconds, record.queue_seconds, record.run_seconds = 3e-5, 1e-3, 2e-5
    record.encode_seconds, record.total_seconds = 1e-5, 1.1e-3
    tallies, calls = Metrics().requests, CallCounts([PATH])
    tracer = Tracer(Nowhere())  # type: ignore[arg-type]
    if trace_rate:
        tracer.change("", {"level": TraceLevel.TIMESTAMPS, "rate": trace_rate})

    def once() -> None:
        tallies.begin(answerer)
        tallies.record(record)
        if tracer.is_on:
            tracer.record(record)
        tallies.end(answerer)
        calls.add(PATH, record.code)

    count = 20_000
    return min(timeit.repeat(once, number=count, repeat=7)) / count * 1e6


def serve(arguments: argparse.Namespace) -> None:
    """Serve until standard input ends."""
    if arguments.without:
        for name in ("begin", "end", "record"):
            setattr(Tallies, name, lambda *_: None)
        CallCounts.add = lambda *_: None
    with tempfile.TemporaryDirectory() as traces:
        settings = ServerSettings(
            arguments.child, port=0, metrics_port=0, measure_memory=False, trace_folder=Path(traces)
        )
        server = Server(settings)
        address = server.start().address
        if arguments.trace_rate:
            switch_tracing_on(address, arguments.trace_rate)
        print(address, flush=True)
        sys.stdin.read()
        server.stop(at_once=True)


def switch_tracing_on(address: str, rate: int) -> None:
    """Have one of `rate` requests traced."""
    request = TraceSettingRequest()
    request.settings["trace_level"].value.append("TIMESTAMPS")
    request.settings["trace_rate"].value.append(str(rate))
    with grpc.insecure_channel(address) as channel:
        channel.unary_unary(TRACE_SETTING)(request.SerializeToString(), timeout=60)


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


def report(blocks: list[list[tuple[float, float]]], alone: dict[int, float]) -> None:
    """Print medians, and the medians of the ratios within each turn."""
    print(f"{'':24s}{'CPU us a request':>18s}{'requests/s':>12s}{'CPU to the first':>28s}")
    for index, name in enumerate(KINDS):
        cpu, rate = (statistics.median(turn[index][kind] for turn in blocks) for kind in (0, 1))
        low, middle, high = statistics.quantiles([turn[index][0] / turn[0][0] for turn in blocks], n=4)
        print(f"{name:24s}{cpu:18.1f}{rate:12.0f}{f'{middle:.3f} ({low:.3f} to {high:.3f})':>28s}")
    cpu = statistics.median(turn[0][0] for turn in blocks)
    for rate, microseconds in alone.items():
        what = f"tracing 1 in {rate}" if rate else "tracing off"
        share = microseconds / cpu
        print(f"recording by itself, {what}: {microseconds:.2f} us a request, {share:.1%} of the first")


if __name__ == "__main__":
    main()
