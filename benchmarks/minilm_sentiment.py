"""A transformer from its ONNX file alone: MiniLM with a sentiment head, beside plain dynamic quantization.

Reads models/minilm_sentiment.onnx and models/minilm_sentiment_{train,eval}.npz below the data folder: token
ids and attention masks padded to one length, and labels. Quality is measured on all of the evaluation set;
latency in turns, on one thread, at lengths that sentences have: 16 tokens (the median here), 26 and
64, one row and eight. On a busy machine, --processor-time counts what the thread computed, not what it waited
for; what others do to the caches and to memory stays in it.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet, load_data
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import file_bytes
from flyweight.compressor.passes.base import Pass, PassSequence
from flyweight.compressor.passes.layout.fuse import FuseGraph
from flyweight.compressor.passes.prune.prune_graph import PruneGraph
from flyweight.compressor.passes.quantize import DynamicInt8
from flyweight.compressor.sessions import Session, SessionSettings, quiet_tools

NAME = "minilm_sentiment"
CALIBRATION_ROWS = 128
STEPS: Mapping[str, Pass] = {
    "ours: fuse-graph": FuseGraph(),
    "ours: dynamic-int8": DynamicInt8(),
    "ours: pruned 20 %, int8": PassSequence([FuseGraph(), PruneGraph(0.2), DynamicInt8()]),
}
SHAPES = ((1, 16), (1, 26), (1, 64), (8, 26), (8, 64))


@dataclass(frozen=True)
class Row:
    """One model of the table: its file, and what it answers on the evaluation set."""

    name: str
    path: Path
    session: Session
    answers: np.ndarray


def main() -> None:
    """Compress, measure and print."""
    arguments = parse()
    folder = arguments.data / "models"
    model, train = folder / f"{NAME}.onnx", load_data(folder / f"{NAME}_train.npz")
    data = load_data(folder / f"{NAME}_eval.npz")
    if arguments.quick:
        data = data.first(100)
    with tempfile.TemporaryDirectory() as work, quiet_tools():
        paths = {"fp32": model, "plain quantize_dynamic": plain(model, Path(work))}
        context = Context(workspace=Path(work), calibration=train.first(CALIBRATION_ROWS))
        for name, step in STEPS.items():
            result = step(Model(path=model), context)
            paths[name] = result.model.onnx_path()
            print(f"{name}: {' '.join(result.notes)}")
        rows = [measured(name, path, data) for name, path in paths.items()]
        print_quality(rows, data)
        clock = time.thread_time if arguments.processor_time else time.perf_counter
        print_latency(rows, data, 0.5 if arguments.quick else arguments.seconds, clock)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    home = os.environ.get("FLYWEIGHT_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(home), help="folder of data (or FLYWEIGHT_DATA)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing for each shape and model")
    parser.add_argument("--processor-time", action="store_true", help="of the thread, instead of the clock's")
    parser.add_argument("--quick", action="store_true", help="100 samples and half a second each")
    return parser.parse_args()


def plain(model: Path, work: Path) -> Path:
    """Quantize as onnxruntime's documentation says: pre-process, then quantize_dynamic with its defaults."""
    prepared, target = work / "prepared.onnx", work / "plain.onnx"
    try:
        quant_pre_process(str(model), str(prepared), skip_symbolic_shape=True)
    except Exception as error:  # noqa: BLE001  # the reference may fail in any way; then it goes without
        print(f"quant_pre_process fails ({str(error).splitlines()[0][:80]}); quantizing the file as it is.")
        shutil.copy(model, prepared)
    quantize_dynamic(str(without_shapes(prepared)), str(target))
    return target


def without_shapes(path: Path) -> Path:
    """Drop the stated shapes of initializers, which quantize_dynamic trips over once it transposes them."""
    model = onnx.load(path)
    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.value_info if value.name not in stored]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)
    onnx.save(model, path)
    return path


def measured(name: str, path: Path, data: DataSet) -> Row:
    """Load a model and ask it about every sample, alone and without padding."""
    session = Session(path, SessionSettings())
    answers = [session.run(unpadded(data, index))["logits"][0] for index in range(data.samples)]
    return Row(name, path, session, np.stack(answers))


def unpadded(data: DataSet, index: int) -> dict[str, np.ndarray]:
    """Return one sample as a server gets it: with as many tokens as its sentence has."""
    length = int(data.inputs["attention_mask"][index].sum())
    return {name: array[index : index + 1, :length] for name, array in data.inputs.items()}


def print_quality(rows: Sequence[Row], data: DataSet) -> None:
    """Print size, accuracy and agreement."""
    labels = data.labels
    assert labels is not None
    first = rows[0]
    print(f"\n{data.samples} samples{'bytes':>22}{'smaller':>9}{'accuracy':>10}{'lost':>7}{'agreement':>11}")
    right = (first.answers.argmax(1) == labels).mean() * 100
    for row in rows:
        size, best = file_bytes(row.path), row.answers.argmax(1)
        accuracy, same = (best == labels).mean() * 100, (best == first.answers.argmax(1)).mean() * 100
        smaller = file_bytes(first.path) / size
        print(
            f"{row.name:<24}{size:>12}{smaller:>8.2f}x{accuracy:>9.1f}%{right - accuracy:>7.1f}{same:>10.1f}%"
        )


def print_latency(rows: Sequence[Row], data: DataSet, seconds: float, clock: Callable[[], float]) -> None:
    """Print median latencies and how many times fp32's speed they are, all models taking turns run by run.

    Twice: a run right after another model's, whose weights are in the caches, and a run after one of its own.
    """
    columns = [in_turns(rows, feed_of(data, *shape), seconds, clock) for shape in SHAPES]
    for which, said in enumerate(("after another model's run", "after a run of its own")):
        print(f"\n{'ms, times fp32, ' + said:<44}" + "".join(f"{b} x {t:<12}" for b, t in SHAPES))
        for place, row in enumerate(rows):
            cells = [
                f"{np.median(times[which][place]) * 1e3:6.2f} {ratio(times[which], place):5.2f}x   "
                for times in columns
            ]
            print(f"{row.name:<44}" + "".join(cells))


def feed_of(data: DataSet, batch: int, length: int) -> Mapping[str, np.ndarray]:
    """Return sentences of exactly so many tokens, all attended to."""
    ids = data.inputs["input_ids"][:batch, :length].copy()
    ids[ids == 0] = ids[0, 1]
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def in_turns(
    rows: Sequence[Row], feed: Mapping[str, np.ndarray], seconds: float, clock: Callable[[], float]
) -> list[list[list[float]]]:
    """Return the times of first and of second runs, by model, taking turns for so many seconds each."""
    runs = [row.session.runner(feed) for row in rows]
    times: list[list[list[float]]] = [[[] for _ in rows] for _ in range(2)]
    for run in runs * 3:
        run()
    end = time.perf_counter() + seconds * len(rows)
    while time.perf_counter() < end:
        for place, run in enumerate(runs):
            for taken in times:
                started = clock()
                run()
                taken[place].append(clock() - started)
    return times


def ratio(times: list[list[float]], place: int) -> float:
    """Return the median over turns of fp32's time over this model's."""
    return float(np.median(np.array(times[0]) / np.array(times[place])))


if __name__ == "__main__":
    main()
