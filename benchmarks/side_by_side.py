r"""Compress the same models with the same data by flyweight and by other tools, all timed in one run.

    python benchmarks/side_by_side.py --environments DIR \
        --case lite0 lite0.onnx lite0_calibration.npz lite0_evaluation.npz static \
        --case minilm minilm.onnx minilm_train.npz minilm_evaluation.npz dynamic

Each tool runs in an environment of its own, made under DIR at first use with the versions below; what it made
is timed here, in turns with the fp32 model. The last word of a case is the kind that suits the model: static
for convolutions, dynamic for transformers; flyweight is not told, it finds out.
"""

import argparse
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import onnx

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet, load_data, save_data
from flyweight.compressor.errors import CompressorError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.options import Options

_HERE: Final = Path(__file__).parent
_COMMON: Final = ("onnx==1.23.2", "onnxruntime==1.31.1")
_LONGEST_SECONDS: Final = 1200
_CALIBRATION_ROWS: Final = 128


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
class Case:
    """A model with its data."""

    name: str
    model: Path
    calibration: DataSet
    evaluation: DataSet
    kind: str


def main() -> None:
    """Run every case and print one table for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, help="Where the tools are installed.")
    parser.add_argument(
        "--case", nargs=5, action="append", required=True, metavar=("NAME", "ONNX", "CALIB", "EVAL", "KIND")
    )
    parser.add_argument("--seconds-per-point", type=float, default=2.0)
    parser.add_argument("--time-limit", type=float, default=600.0, help="Of flyweight's own run, seconds.")
    given = parser.parse_args()
    for name, model, calibration, evaluation, kind in given.case:
        some = load_data(Path(calibration)).first(_CALIBRATION_ROWS)
        case = Case(name, Path(model), some, load_data(Path(evaluation)), kind)
        with tempfile.TemporaryDirectory(prefix="flyweight-side-by-side-") as folder:
            _run(case, Path(folder), given)


def _run(case: Case, folder: Path, given: argparse.Namespace) -> None:
    made: list[tuple[str, Path | None, float, str]] = []
    for tool in TOOLS:
        print(f"{case.name}: {tool.name} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        path, failure = _by(tool, case, folder, given.environments)
        made.append((tool.name, path, time.monotonic() - started, failure))
    print(f"{case.name}: flyweight ...", file=sys.stderr, flush=True)
    started = time.monotonic()
    path = _by_flyweight(case, folder, given.time_limit)
    made.append((f"flyweight ({path.parent.name})", path, time.monotonic() - started, ""))
    settings = BenchSettings(seconds_per_point=given.seconds_per_point)
    answers = folder / "answers"
    answers.mkdir()
    bench = Bench(case.model, case.evaluation, answers, settings)
    rows = [_row("fp32", bench.measure_baseline(), None, 0.0)]
    base = rows[0].bytes
    for name, made_path, seconds, failure in made:
        if made_path is None:
            rows.append(Row(name, f"failed: {failure}", 0, seconds))
            continue
        try:
            rows.append(_row(name, bench.measure(made_path), base, seconds))
        except CompressorError as error:
            rows.append(Row(name, f"broken: {error}", 0, seconds))
    print(
        f"\n{case.name} ({case.kind}): {bench.samples} samples judged, {case.calibration.samples} calibrated"
    )
    for row in rows:
        print(f"  {row.name:<34} {row.text}  (made in {row.seconds:.0f} s)")


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    name: str
    text: str
    bytes: int
    seconds: float


def _row(name: str, found: Evaluation, base: int | None, seconds: float) -> Row:
    ratio = 1.0 if base is None else base / found.file_bytes
    points = "  ".join(f"b{p.batch} {p.p50_seconds * 1e3:8.3f} ms {p.speedup:5.2f}x" for p in found.latency)
    figures = found.quality.figures
    shown = "  ".join(f"{key} {figures[key]:.4f}" for key in ("accuracy", "agreement") if key in figures)
    return Row(name, f"{points}  {ratio:5.2f}x smaller  {shown}", found.file_bytes, seconds)


def _by(tool: Tool, case: Case, folder: Path, environments: Path) -> tuple[Path | None, str]:
    """Return what a tool made of the case, or why it made nothing."""
    python = _environment(tool, environments)
    source, samples, target = folder / "in.onnx", folder / "in.npz", folder / f"{tool.worker}.onnx"
    # Two of the tools stumble over the shapes that exporters note down for tensors they later transposed.
    model = onnx.load(case.model)
    del model.graph.value_info[:]
    onnx.save(model, source)
    save_data(samples, DataSet(case.calibration.inputs))
    command = [
        str(python),
        str(_HERE / "peers" / tool.worker),
        str(source),
        str(samples),
        str(target),
        case.kind,
    ]
    try:
        ended = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return None, f"not done after {_LONGEST_SECONDS} s"
    if ended.returncode or not target.exists():
        lines = [line for line in (ended.stderr + ended.stdout).splitlines() if line.strip()]
        return None, lines[-1][:120] if lines else f"exit code {ended.returncode}"
    return target, ""


def _environment(tool: Tool, folder: Path) -> Path:
    """Return the Python of a tool's environment, made now if it is not there."""
    home = folder / tool.worker.removesuffix("_worker.py")
    python, done = home / "bin" / "python", home / "installed"
    if not done.exists():
        venv.create(home, with_pip=True, clear=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *tool.requirements], check=True)
        done.touch()
    return python


def _by_flyweight(case: Case, folder: Path, time_limit: float) -> Path:
    """Return the variant that flyweight recommends, told nothing but the model and the calibration data.

    Judging inside `compress` is on the calibration data as well: the evaluation data are for the table alone.
    """
    report = compress(
        case.model,
        data=case.calibration,
        repository=folder / "repository",
        name="model",
        options=Options(time_limit_seconds=time_limit),
    )
    return folder / "repository" / "model" / report.recommended / "model.onnx"


if __name__ == "__main__":
    main()
