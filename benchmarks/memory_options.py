"""What each memory setting gives and what it costs: memory when loaded, after a large batch, and latency.

Each case is a process of its own that holds one model with the server's session, in rounds, so that what the
machine does meanwhile falls on all of them. Memory is what the process grew by since before the model (PSS,
freed memory given back), and of it the pages that are of no file, which is what cannot be shared or dropped;
printed are medians. Latencies are the best of all rounds, as ratios to the default's.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter

import onnx

from flyweight.server.runtime.growth import GrowthMeter
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session import Session, open_session
from flyweight.server.runtime.session_entries import ARENA_SHRINKAGE
from memory_models import NAMES, row, write

PREPACKING = "session.disable_prepacking"
# A name, whether the weights lie in a file of their own, and the session's settings.
CASES: dict[str, tuple[bool, dict[str, str]]] = {
    "default": (False, {}),
    "external data": (True, {}),
    "prepacking off": (False, {PREPACKING: "1"}),
    "both": (True, {PREPACKING: "1"}),
    "arena shrinkage": (False, {ARENA_SHRINKAGE: "cpu:0"}),
    "no arena": (False, {"enable_mem_arena": "0"}),
}
SMALL, LARGE = 1, 8
# One batch that nobody expected.
ODD = {"convnet": 64, "convnet-int8": 64, "matmul": 4096, "mlp": 16384}
HEAD = ("loaded", "own pages", "load peak", "after an odd batch", "and a small one")
MEGABYTE = 1e6


def main() -> None:
    """Measure every case of every model, and print a table for each model."""
    arguments = parse()
    if arguments.case:
        print(json.dumps(measure(arguments.model[0], Path(arguments.path), arguments.case)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.model or NAMES:
            plain = write(name, Path(folder) / name / "plain" / "model.onnx")
            external = plain.parents[1] / "external" / "model.onnx"
            external.parent.mkdir()
            data = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 1024}
            onnx.save(onnx.load(plain), external, **data)
            found: dict[str, list[list[float]]] = {case: [] for case in CASES}
            for _ in range(arguments.rounds):
                for case, (is_external, _entries) in CASES.items():
                    found[case].append(child(name, external if is_external else plain, case))
            report(name, found)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", action="append", help="of memory_models.NAMES; may be repeated")
    parser.add_argument("--case", choices=CASES, help=argparse.SUPPRESS)
    parser.add_argument("--path", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(name: str, path: Path, case: str) -> list[float]:
    """Return what a fresh process measures."""
    command = [sys.executable, __file__, "--model", name, "--path", str(path), "--case", case]
    told: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return told


def measure(name: str, path: Path, case: str) -> list[float]:
    """Return the five figures of HEAD in MB, and two latencies in ms."""
    meter = GrowthMeter(owns_process=True)
    session = open_session(path, SessionSettings(config_entries=CASES[case][1]), 1, is_coded=False)
    loaded = meter.read()
    small = latency(session, name, SMALL)
    settled = meter.read()
    large = latency(session, name, LARGE)
    session.run(["y"], {"x": row(name, ODD[name])})
    odd = meter.read()
    session.run(["y"], {"x": row(name)})
    grown = [loaded.pss_bytes, settled.anonymous_bytes, loaded.peak_bytes or 0]
    after = [odd.anonymous_bytes, meter.read().anonymous_bytes]
    return [value / MEGABYTE for value in (*grown, *after)] + [small, large]


def latency(session: Session, name: str, rows: int) -> float:
    """Return the milliseconds of the fastest run, after one that warms up."""
    inputs, times = {"x": row(name, rows)}, []
    session.run(["y"], inputs)
    for _ in range(7):
        began = perf_counter()
        session.run(["y"], inputs)
        times.append((perf_counter() - began) * 1e3)
    return min(times)


def report(name: str, found: dict[str, list[list[float]]]) -> None:
    """Print one model's table."""
    print(f"\n{name:17s}" + "".join(f"{title:>20s}" for title in HEAD) + "  batch 1  batch 8", flush=True)
    best = {case: [min(column) for column in zip(*rounds, strict=True)] for case, rounds in found.items()}
    for case, rounds in found.items():
        middle = [statistics.median(column) for column in zip(*rounds, strict=True)]
        memory = "".join(f"{value:17.1f} MB" for value in middle[: len(HEAD)])
        ratios = (best[case][index] / best["default"][index] for index in (-2, -1))
        print(f"{case:17s}{memory}" + "".join(f"{ratio:9.2f}" for ratio in ratios), flush=True)


if __name__ == "__main__":
    main()
