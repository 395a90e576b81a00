"""A load generator: callers that ask again as soon as they are answered, over prebuilt HTTP/2 frames.

    python -m benchmarks.serving.load ADDRESS PATH BODY --callers 32 --seconds 2

BODY is a file with the message, without gRPC's prefix. Prints a line of JSON: answers, grpc-status other than
0 by count, answers of another size than the first, percentiles in microseconds. It needs nothing but Python,
and looks at every answer's grpc-status; h2load, where there is one, costs less and does not.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from typing import Final

from benchmarks.serving.frames import Connection, grpc_message
from benchmarks.serving.percentiles import percentile

# One connection is one caller's worth of flow control; servers balance work over several.
CALLERS_OF_A_CONNECTION: Final = 8
_PATIENCE_SECONDS: Final = 30.0
_TICK_SECONDS: Final = 0.001
# Timers of asyncio are that late: the selector's clock has milliseconds.
_LATE_SECONDS: Final = 0.0025


class Load:
    """Counts the answers of one run. For one loop's thread."""

    def __init__(self, seconds: float, rate: float = 0.0) -> None:
        self._began = time.perf_counter()
        self._until = self._began + seconds
        self._rate = rate
        self._due = 0
        self.elapsed_seconds = 0.0
        self.seconds: list[float] = []
        self.starts: list[float] = []
        self.failures: Counter[str] = Counter()
        self.sizes: Counter[int] = Counter()
        self._begun: dict[tuple[int, int], float] = {}
        self._is_over = asyncio.Event()

    def begin(self, number: int, connection: Connection) -> None:
        """Begin a call on a connection, by number."""
        now = time.perf_counter()
        self._begun[number, connection.call()] = now

    def end(self, number: int, connection: Connection, answer: tuple[int, str, int]) -> None:
        """Note an answer, and ask again."""
        stream, status, size = answer
        now = time.perf_counter()
        began = self._begun.pop((number, stream))
        if status == "0":
            self.seconds.append(now - began)
            self.starts.append(began)
            self.sizes[size] += 1
        else:
            self.failures[status] += 1
        if self._rate:
            self._close_when_over(now)
        elif now < self._until and not connection.is_closed:
            self.begin(number, connection)
        elif not self._begun:
            self.elapsed_seconds = now - self._began
            self._is_over.set()

    async def keep_pace(self, connections: list[Connection]) -> None:
        """Begin calls at a constant rate, whether or not others are answered.

        Times count from when a call was due, unless it is the timer that was late.
        """
        while (now := time.perf_counter()) < self._until:
            while (due := self._began + self._due / self._rate) <= now:
                number = self._due % len(connections)
                self._due += 1
                begun = now if now - due < _LATE_SECONDS else due
                self._begun[number, connections[number].call()] = begun
            await asyncio.sleep(_TICK_SECONDS)
        self._close_when_over(now)

    def _close_when_over(self, now: float) -> None:
        if now >= self._until and not self._begun:
            self.elapsed_seconds = now - self._began
            self._is_over.set()

    async def wait(self) -> None:
        """Wait until every call has its answer."""
        await asyncio.wait_for(self._is_over.wait(), self._until - time.perf_counter() + _PATIENCE_SECONDS)


async def _connect(load_of: list[Load], number: int, given: argparse.Namespace, body: bytes) -> Connection:
    address = given.address
    host, _, port = address.rpartition(":")
    made: list[Connection] = []

    def on_answer(stream: int, status: str, size: int) -> None:
        load_of[0].end(number, made[0], (stream, status, size))

    def factory() -> Connection:
        made.append(Connection(address, given.path, grpc_message(body), on_answer, fresh=given.fresh_headers))
        return made[0]

    await asyncio.get_running_loop().create_connection(factory, host, int(port))
    await asyncio.wait_for(made[0].ready, _PATIENCE_SECONDS)
    return made[0]


async def run(given: argparse.Namespace) -> Load:
    """Ask as the command line says; every call that was begun is waited for.

    Raises:
        OSError: the server cannot be reached.
        TimeoutError: a call was not answered.
    """
    load_of: list[Load] = []
    count = max(1, given.callers // CALLERS_OF_A_CONNECTION)
    body = given.body.read_bytes()
    connections = [await _connect(load_of, number, given, body) for number in range(count)]
    load = Load(given.seconds, given.rate)
    load_of.append(load)
    if given.rate:
        await load.keep_pace(connections)
    else:
        for caller in range(given.callers):
            load.begin(caller % count, connections[caller % count])
    await load.wait()
    for connection in connections:
        connection.close()
    return load


def main() -> None:
    """Run, and print what came."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("path")
    parser.add_argument("body", type=Path)
    parser.add_argument("--callers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=0.0, help="calls a second; 0: as soon as answered")
    parser.add_argument(
        "--fresh-headers",
        action="store_true",
        help="a traceparent and a grpc-timeout of its own for each call: no header block repeats",
    )
    parser.add_argument("--log", type=Path, help="for each answer a line: when it was due, and its seconds")
    given = parser.parse_args()
    load = asyncio.run(run(given))
    if given.log:
        lines = zip(load.starts, load.seconds, strict=True)
        given.log.write_text("".join(f"{begun:.6f} {seconds:.6f}\n" for begun, seconds in lines))
    usual = load.sizes.most_common(1)[0][0] if load.sizes else 0
    print(
        json.dumps(
            {
                "answers": len(load.seconds),
                "seconds": load.elapsed_seconds,
                "failures": dict(load.failures),
                "odd_sizes": sum(count for size, count in load.sizes.items() if size != usual),
                "message_bytes": usual,
                "p50_us": percentile(load.seconds, 50) * 1e6,
                "p99_us": percentile(load.seconds, 99) * 1e6,
            }
        )
    )


if __name__ == "__main__":
    main()
