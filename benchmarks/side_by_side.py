r"""Compress the same models with the same data by flyweight and by other tools, all timed in one run.

    python benchmarks/side_by_side.py --environments DIR [--data DATA]

Three models: EfficientNet-Lite0 (crops as in efficientnet_lite0.py), MiniLM with a sentiment head, and a
convnet that is trained here on Fashion-MNIST. --case takes others, as NAME ONNX CALIBRATION EVALUATION KIND;
the kind, static or dynamic, is what the documentations of the other tools advise for the network: flyweight
is not told, it finds out.

Each tool runs in an environment of its own, made under DIR at first use with the versions below, with the
settings that its documentation recommends for CPUs. What it made is timed here, in turns with the fp32 model,
on one thread; answers are judged on data that no tool saw. All get the model without the shapes that the
exporter noted down: those of weights that a tool transposes go stale, and onnx's shape inference then stops
the quantizers of onnxruntime, Quark and Olive.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import onnx

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet, save_data
from flyweight.compressor.errors import CompressorError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.options import Options
from flyweight.compressor.outcome import describe_environment
from flyweight.protos.variant.names import CODED_FILE, MODEL_FILE
from peers.cases import CASES, Case, Origin, given

_HERE: Final = Path(__file__).parent
_COMMON: Final = ("onnx==1.23.2", "onnxruntime==1.31.1")
_LONGEST_SECONDS: Final = 1200
# Long enough for a sentence, short enough for a line.
_LONGEST_REASON: Final = 160


@dataclass(frozen=True, slots=True)
class Tool:
    """Another compressor.

    Attributes:
        name: for the table.
        worker: the script in peers/ that runs it.
        requirements: what its environment holds.
    """

    name: str
    worker: str
    requirements: tuple[str, ...]


TOOLS: Final = (
    Tool("onnxruntime 1.31.1", "ort_worker.py", (*_COMMON, "sympy")),
    Tool("NNCF 3.4.0", "nncf_worker.py", (*_COMMON, "torch==2.13.0", "nncf==3.4.0")),
    Tool("AMD Quark 0.13", "quark_worker.py", ("onnxruntime==1.31.1", "torch==2.13.0", "amd-quark==0.13")),
    # Olive imports requests, and does not ask for it.
    Tool("Olive 0.13.0", "olive_worker.py", (*_COMMON, "torch==2.13.0", "olive-ai==0.13.0", "requests")),
)


@dataclass(frozen=True, slots=True)
class Made:
    """What a tool made of a model.

    Attributes:
        name: of the tool, for the table.
        path: the ONNX file; None when it made none.
        seconds: that it took.
        reason: why it made none.
    """

    name: str
    path: Path | None
    seconds: float
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table: the tool, its figures or what kept it from any, the seconds it took."""

    name: str
    seconds: float
    found: Evaluation | None = None
    failure: str = ""


def main() -> None:
    """Run every tool on every case and print one table."""
    arguments = parse()
    where = describe_environment(1)
    tables = list[tuple[str, list[Row]]]()
    with tempfile.TemporaryDirectory(prefix="flyweight-side-by-side-") as work:
        for make in cases(arguments, Path(work)):
            case = make()
            folder = Path(work) / case.name.replace(" ", "-")
            folder.mkdir()
            rows, samples = compare(case, folder, arguments)
            head = f"{case.name}: {case.calibration.samples} samples to calibrate, {samples} others judged"
            tables.append((head, rows))
    print(f"{where['cpu']}, {where['isa']}, one thread, onnxruntime {where['onnxruntime']}")
    print_table(tables)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    home = os.environ.get("FLYWEIGHT_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(home), help="folder of data (or FLYWEIGHT_DATA)")
    parser.add_argument("--environments", type=Path, required=True, help="where the tools are installed")
    parser.add_argument("--models", nargs="+", choices=sorted(CASES), help="some of the three models")
    parser.add_argument("--weights", type=Path, help="the convnet's weights: read if there, else written")
    parser.add_argument("--tools", nargs="*", help="some of the tools, by a part of their names")
    parser.add_argument(
        "--case", nargs=5, action="append", metavar=("NAME", "ONNX", "CALIB", "EVAL", "KIND"), default=[]
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="of timing for each batch and variant")
    parser.add_argument("--time-limit", type=float, default=600.0, help="of flyweight's own run, seconds")
    parser.add_argument("--quick", action="store_true", help="few samples; shows that it works")
    return parser.parse_args()


def cases(arguments: argparse.Namespace, work: Path) -> list[Callable[[], Case]]:
    """Return what makes the cases that were asked for."""
    names = arguments.models or ([] if arguments.case else CASES)
    origin = Origin(arguments.data, work, arguments.weights, arguments.quick)
    own = [partial(CASES[name], origin) for name in names]
    return [*own, *(partial(given, *case) for case in arguments.case)]


def compare(case: Case, folder: Path, arguments: argparse.Namespace) -> tuple[list[Row], int]:
    """Return the lines of one model's table, and how many samples judged."""
    chosen = [
        tool
        for tool in TOOLS
        if arguments.tools is None or any(part.lower() in tool.name.lower() for part in arguments.tools)
    ]
    made = [by_tool(tool, case, folder, arguments.environments) for tool in chosen]
    made.append(by_flyweight(case, folder, arguments.time_limit))
    answers = folder / "answers"
    answers.mkdir()
    bench = Bench(case.model, case.evaluation, answers, BenchSettings(seconds_per_point=arguments.seconds))
    rows = [Row("fp32", 0.0, bench.measure_baseline())]
    for one in made:
        if one.path is None:
            rows.append(Row(one.name, one.seconds, failure=f"failed: {one.reason}"))
            continue
        try:
            rows.append(Row(one.name, one.seconds, bench.measure(one.path)))
        except CompressorError as error:
            rows.append(Row(one.name, one.seconds, failure=f"broken: {error}"))
    return rows, bench.samples


def by_tool(tool: Tool, case: Case, folder: Path, environments: Path) -> Made:
    """Return what a tool makes of the case."""
    python = environment(tool, environments)
    print(f"{case.name}: {tool.name} ...", file=sys.stderr, flush=True)
    source, samples, target = folder / "in.onnx", folder / "in.npz", folder / f"{tool.worker}.onnx"
    model = onnx.load(case.model)
    del model.graph.value_info[:]
    onnx.save(model, source)
    save_data(samples, DataSet(case.calibration.inputs))
    worker = _HERE / "peers" / tool.worker
    command = [str(part) for part in (python, worker, source, samples, target, case.kind)]
    started = time.monotonic()
    try:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Made(tool.name, None, _LONGEST_SECONDS, f"not done after {_LONGEST_SECONDS} s")
    seconds = time.monotonic() - started
    if ended.returncode or not target.exists():
        return Made(tool.name, None, seconds, reason_of(ended.stderr + ended.stdout, ended.returncode))
    return Made(tool.name, target, seconds)


def reason_of(output: str, code: int) -> str:
    """Return the line that says why a program ended so: its last error, or else its last line."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error:" in line]
    told = (errors or lines or [f"exit code {code}"])[-1]
    return told if len(told) <= _LONGEST_REASON else f"{told[:_LONGEST_REASON]}..."


def environment(tool: Tool, folder: Path) -> Path:
    """Return the Python of a tool's environment, made now if it is not there."""
    home = folder / tool.worker.removesuffix("_worker.py")
    python, done = home / "bin" / "python", home / "installed"
    if not done.exists():
        print(f"installing {tool.name} ...", file=sys.stderr, flush=True)
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *tool.requirements], check=True)
        done.touch()
    return python


def by_flyweight(case: Case, folder: Path, time_limit: float) -> Made:
    """Return the variant that flyweight recommends, told nothing but the model and the calibration data.

    Judging inside `compress` is on the calibration data as well: the evaluation data are for the table alone.
    """
    print(f"{case.name}: flyweight ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    report = compress(
        case.model,
        data=case.calibration,
        repository=folder / "repository",
        name="model",
        options=Options(time_limit_seconds=time_limit, explain=False, work_folder=folder / "kept"),
    )
    home = folder / "repository" / "model" / report.recommended
    name = f"flyweight ({report.recommended})"
    for variant in report.variants[1:]:
        print(f"  {variant.name}: {variant.verdict.reason}", file=sys.stderr, flush=True)
    if (home / CODED_FILE).exists():
        return Made(name, None, time.monotonic() - started, "a coded file, which only the server reads")
    return Made(name, home / MODEL_FILE, time.monotonic() - started)


def print_table(tables: Sequence[tuple[str, list[Row]]]) -> None:
    """Print all cases, one line for each tool."""
    for head, rows in tables:
        first = rows[0].found
        assert first is not None, "the baseline is measured first"
        batches = [point.batch for point in first.latency]
        print(f"\n{head}")
        times = "".join(f"{f'ms x {batch}':>10}{'faster':>8}" for batch in batches)
        print(f"  {'':40}{times}{'smaller':>9}{'accuracy':>10}{'agreement':>11}{'seconds':>9}")
        for row in rows:
            print(f"  {row.name:40}{_figures(row, first)}{row.seconds:>9.0f}")


def _figures(row: Row, first: Evaluation) -> str:
    if row.found is None:
        return f"{row.failure}  "
    times = "".join(f"{1e3 * p.p50_seconds:>10.3f}{p.speedup:>7.2f}x" for p in row.found.latency)
    figures = row.found.quality.figures
    accuracy, agreement = (
        f"{figures[key]:.2%}" if key in figures else "" for key in ("accuracy", "agreement")
    )
    return f"{times}{first.file_bytes / row.found.file_bytes:>8.2f}x{accuracy:>10}{agreement:>11}"


if __name__ == "__main__":
    main()
