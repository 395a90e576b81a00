"""200 times a variant is loaded, asked and unloaded: what is left of it in the server, and outside.

The server is told to load and to unload (--model-control explicit) over its own RPCs, with a request in
between, by this process; four networks of 1 to 50 MB take turns. Printed are the server's USS every so many
cycles, how much it grew, and the processes and open files that are left. `--runtime process` puts the models
into workers.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flyweight.client import Client, Settings
from memory_models import row, write

READY = re.compile(r"flyweight ready grpc=(\S+) metrics=(\S+)")
# What the first cycles leave is not a leak: code that is touched once, pools that fill, a heap that settles.
SETTLED = 12
MEGABYTE = 1e6


def main() -> None:
    """Run the cycles and print the curve."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.model:
            write(name, Path(folder) / name / "1" / "model.onnx")
        with serving(Path(folder), arguments.runtime) as (pid, address, metrics):
            curve = [held(pid)]
            files = open_files(pid)
            print(f"{'cycle':>6s} {'USS, MB':>9s} {'PSS, MB':>9s} {'workers':>8s} {'files':>6s}")
            with Client(address, Settings(timeout_seconds=60)) as client:
                for cycle in range(1, arguments.cycles + 1):
                    turn(client, arguments.model[cycle % len(arguments.model)])
                    curve.append(held(pid))
                    if cycle % max(1, arguments.cycles // 10) == 0 or cycle in {1, SETTLED}:
                        if cycle % 50 == 0:
                            urllib.request.urlopen(metrics, timeout=60).read()  # noqa: S310  # our own
                        uss, pss = (value / MEGABYTE for value in curve[-1])
                        left = f"{len(children(pid)):8d} {open_files(pid):6d}"
                        print(f"{cycle:6d} {uss:9.2f} {pss:9.2f} {left}", flush=True)
            report(curve, children(pid), open_files(pid) - files)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200)
    parser.add_argument("--runtime", choices=("inline", "process"), default="inline")
    parser.add_argument("--model", action="append", help="of memory_models.NAMES; may be repeated")
    arguments = parser.parse_args()
    arguments.model = arguments.model or ["convnet-int8", "mlp", "matmul", "convnet"]
    return arguments


@contextmanager
def serving(repository: Path, runtime: str) -> Iterator[tuple[int, str, str]]:
    """Run a server that loads nothing by itself; yield its process's number and its addresses."""
    command = [str(Path(sys.executable).with_name("flyweight")), "serve", str(repository)]
    options = ["--runtime", runtime, "--model-control", "explicit", "--port", "0", "--metrics-port", "0"]
    log = {"stderr": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with subprocess.Popen([*command, *options], text=True, **log) as process:  # type: ignore[call-overload]
        try:
            found = READY.match(process.stdout.readline())
            if found is None:
                raise SystemExit("The server did not start.")
            yield process.pid, found[1], found[2]
        finally:
            process.terminate()


def turn(client: Client, model: str) -> None:
    """Load, ask and unload."""
    client.load(model)
    client.predict(model, {"x": row(model)})
    client.unload(model)


def held(pid: int) -> tuple[int, int]:
    """Return a process's USS and PSS in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return fields["Private_Clean:"] + fields["Private_Dirty:"], fields["Pss:"]


def children(pid: int) -> set[str]:
    """Return the processes that a process has started and not yet seen the end of."""
    found: set[str] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        found.update((task / "children").read_text(encoding="ascii").split())
    return found


def open_files(pid: int) -> int:
    """Return how many files a process has open."""
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def report(curve: list[tuple[int, int]], workers: set[str], files: int) -> None:
    """Print what is left."""
    settled, last = curve[min(SETTLED, len(curve) - 1)][0], curve[-1][0]
    start = min(SETTLED, len(curve) - 1)
    uss = [value / MEGABYTE for value, _ in curve[start:]]
    grown = (last - settled) / MEGABYTE
    print(f"grown by {grown:.2f} MB since cycle {start}, {slope(uss) * 1000:.2f} kB a cycle")
    print(f"grown by {(last - curve[0][0]) / MEGABYTE:.2f} MB since before the first")
    print(f"left: {len(workers)} processes, {files} more open files")


def slope(values: list[float]) -> float:
    """Return the slope of the least-squares line through values at 0, 1, 2, ..."""
    count = len(values)
    if count < 2:
        return 0.0
    middle, mean = (count - 1) / 2, sum(values) / count
    spread = sum((index - middle) ** 2 for index in range(count))
    return sum((index - middle) * (value - mean) for index, value in enumerate(values)) / spread


if __name__ == "__main__":
    main()
