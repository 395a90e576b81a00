"""Compress every ONNX model that comes with the onnx package, and look for harm: crashes, and worse variants.

The light models are full convolutional networks with made-up weights; the others are graphs of one or a few
operators with inputs of their own. Each is compressed with the defaults on eight samples (its own input, and
seven with a little noise). What was published is loaded again in onnxruntime and compared with the original
by code that shares nothing with the compressor: inputs and outputs, finite answers, how alike answers are,
time and bytes. Nothing here is timed for its own sake.
"""

import argparse
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import numpy_helper

from flyweight.compressor import DataSet, Options, compress
from flyweight.protos.errors import FlyweightError

SAMPLES = 8
FOLDERS = ("light", "simple", "pytorch-converted", "pytorch-operator")
QUICK = (
    "light/squeezenet",
    "light/shufflenet",
    "Linear",
    "Conv2d_depthwise_padded",
    "Embedding",
    "sequence_model1",
)
# A variant within 1 % of the baseline's quality answers nearly the same.
LEAST_COSINE = 0.98


@dataclass(frozen=True)
class Case:
    """A model and one input for it."""

    name: str
    path: Path
    inputs: dict[str, np.ndarray]


@dataclass
class Tally:
    """What came of all cases."""

    outcomes: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


def main() -> None:
    """Compress all and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few models only")
    parser.add_argument("--only", default="", help="models whose name holds this")
    parser.add_argument("--time-limit", type=float, default=60.0, help="seconds for each model")
    arguments = parser.parse_args()
    tally = Tally()
    for case in cases():
        chosen = not arguments.quick or any(part in case.name for part in QUICK)
        if chosen and arguments.only in case.name:
            started = time.monotonic()
            outcome = attempt(case, tally, arguments.time_limit)
            print(f"{case.name:<60} {time.monotonic() - started:5.1f} s  {outcome}", flush=True)
    print(f"\n{sum(tally.outcomes.values())} models:")
    for outcome, count in tally.outcomes.most_common():
        print(f"{count:>5} {outcome}")
    print(f"{len(tally.problems)} problems" + "".join(f"\n  {problem}" for problem in tally.problems))


def cases() -> Iterator[Case]:
    """Yield the package's models, each with an input."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data"
    for path in sorted((root / "light").glob("*.onnx")):
        yield Case(f"light/{path.stem.removeprefix('light_')}", path, random_inputs(path))
    for folder in FOLDERS[1:]:
        for path in sorted((root / folder).glob("*/model.onnx")):
            yield Case(f"{folder}/{path.parent.name}", path, stored_inputs(path))


def random_inputs(path: Path) -> dict[str, np.ndarray]:
    """Return normal numbers in the shape of a model's inputs, initializers left out."""
    graph = onnx.load(path).graph
    stored, random = {tensor.name for tensor in graph.initializer}, np.random.default_rng(0)
    return {
        value.name: random.standard_normal(
            [dimension.dim_value or 1 for dimension in value.type.tensor_type.shape.dim], dtype=np.float32
        )
        for value in graph.input
        if value.name not in stored
    }


def stored_inputs(path: Path) -> dict[str, np.ndarray]:
    """Return the first test input that is stored beside a model; sequences are left out."""
    graph, found = onnx.load(path).graph, {}
    files = sorted((path.parent / "test_data_set_0").glob("input_*.pb"), key=lambda file: int(file.stem[6:]))
    for value, file in zip(graph.input, files, strict=False):
        if value.type.HasField("tensor_type"):
            found[value.name] = numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
    return found


def samples_of(case: Case) -> DataSet:
    """Return eight samples of a whole input each, floats with noise."""
    random, arrays = np.random.default_rng(1), {}
    for name, array in case.inputs.items():
        many = np.stack([array] * SAMPLES)
        if many.dtype.kind == "f":
            noise = random.standard_normal(many.shape) * 0.05 * np.std(array)
            noise[0] = 0
            many = (many + noise).astype(many.dtype)
        arrays[name] = many.astype(str) if many.dtype == object else many
    return DataSet(arrays)


def attempt(case: Case, tally: Tally, seconds: float) -> str:
    """Compress one model and check what was published; return what happened in a few words."""
    options = Options(seconds_per_point=0.05, calibration_samples=SAMPLES, time_limit_seconds=seconds)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = samples_of(case)
            report = compress(case.path, data=data, repository=folder, name="model", options=options)
        except FlyweightError as error:
            tally.outcomes["refused with a sentence"] += 1
            check_sentence(case, str(error), tally)
            return f"refused: {error}"
        except Exception as error:  # noqa: BLE001  # a crash is what this looks for
            tally.outcomes["CRASHED"] += 1
            tally.problems.append(f"{case.name}: {''.join(traceback.format_exception(error)[-3:])}")
            return f"CRASHED: {error!r}"
        published = [variant for variant in report.variants[1:] if variant.verdict.published]
        for variant in report.variants[1:]:
            check_sentence(case, variant.verdict.reason, tally)
        for variant in published:
            assert variant.path is not None
            harm = harm_of(case.path, variant.path, data)
            if harm is not None:
                tally.problems.append(f"{case.name}: {variant.name} was published and {harm}")
    names = ", ".join(variant.name for variant in published) or "only the baseline"
    tally.outcomes["published some variant" if published else "published only the baseline"] += 1
    reasons = (
        "" if published else " (" + " | ".join(v.verdict.reason[:90] for v in report.variants[1:3]) + ")"
    )
    return f"published {names}{reasons}"


def check_sentence(case: Case, sentence: str, tally: Tally) -> None:
    """Expect one line that ends as a sentence does and shows nobody a traceback."""
    if "\n" in sentence or not sentence.endswith(".") or "Traceback" in sentence or not sentence.strip():
        tally.problems.append(f"{case.name}: this is no sentence: {sentence!r}")


def harm_of(original: Path, folder: Path, data: DataSet) -> str | None:
    """Compare a published variant with the original, without the compressor's help; None when it is sound."""
    path = folder / "model.onnx"
    if not path.exists():
        return None  # A coded file has no graph that onnxruntime could load.
    before, after = session_of(original), session_of(path)
    for kind in ("get_inputs", "get_outputs"):
        first, second = ([(t.name, t.type) for t in getattr(session, kind)()] for session in (before, after))
        if first != second:
            return f"has other {kind[4:]}: {second} instead of {first}"
    likeness, times = [], ([], [])
    for row in range(data.samples):
        feed = {name: array[row] for name, array in data.inputs.items()}
        feed = {k: v.astype(object) if v.dtype.kind == "U" else v for k, v in feed.items()}
        answers = []
        for session, taken in zip((before, after), times, strict=True):
            started = time.perf_counter()
            answers.append(session.run(None, feed))
            taken.append(time.perf_counter() - started)
        for theirs, ours in zip(*answers, strict=True):
            if theirs.shape != ours.shape:
                return f"answers {ours.shape} instead of {theirs.shape}"
            if theirs.dtype.kind == "f" and not np.array_equal(np.isfinite(theirs), np.isfinite(ours)):
                return "answers with other infinities"
            likeness.append(cosine(theirs, ours))
    if np.mean(likeness) < LEAST_COSINE:
        return f"its answers are like the original's by {np.mean(likeness):.3f} only"
    bigger, slower = size_of(path) > size_of(original), np.median(times[1]) > 1.5 * np.median(times[0])
    return "is slower and bigger" if bigger and slower else None


def session_of(path: Path) -> ort.InferenceSession:
    """Load a model as it is served: one thread, all of onnxruntime's optimisations."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Return the cosine between two answers, 1 for what is not numbers and equal."""
    if one.dtype.kind not in "fiu":
        return float(np.array_equal(one, other))
    left, right = (np.nan_to_num(part.astype(np.float64)).reshape(-1) for part in (one, other))
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size else float(np.array_equal(left, right))


def size_of(path: Path) -> int:
    """Return the bytes of a model with everything beside it that belongs to it."""
    return sum(file.stat().st_size for file in path.parent.glob(f"{path.name}*"))


if __name__ == "__main__":
    main()
