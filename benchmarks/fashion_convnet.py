"""A convnet trained on Fashion-MNIST, and what the compressor makes of it: quality, speed and size.

The baseline (0.58 million parameters, 29 million multiply-adds) is trained here, from a seed. Each variant is
a recipe as `flyweight compress --recipe` takes it; latency is measured in ONNX Runtime in turns with the
baseline on one thread, accuracy on the 10,000 test images, which no recipe sees, with a 95 % interval
(Wilson); --choose judges on training images left out instead, to choose recipes by. The goal: 10 times as
fast and 15 times as small within half a point. With --few 40 the recipes get 40 samples without labels: what
distillation, hints and factorisation can do with those alone.
"""

import argparse
import gzip
import os
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file, save_file
from torch import nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.intervals import wilson
from flyweight.compressor.evaluate.latency import time_in_turns
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import Pass
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.recipe import load_recipes
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings, rows_of, seeded, train

# Where the distribution's package of Fashion-MNIST puts its files.
USUAL_FOLDER = Path("/usr/share/datasets")
CHOOSING_ROWS = 10_000
SEED = 0
BATCHES = (1, 8)

RECIPES = """
name: int8
passes: [export, static-int8]
---
name: compact
passes:
  - pool-to-stride
  - narrow: {width: 0.4}
  - distill: {training: {epochs: EPOCHS, batch_rows: 128, learning_rate: 0.006}}
  - export
  - static-int8
"""

CUT = "{narrow: {width: 0.75}}"
LEARN = "training: {epochs: EPOCHS, batch_rows: 20, learning_rate: 0.001}"
MIXED, MOVED = "augmentation: {mixup: 0.5}", "augmentation: {shift: 2, flip: true}"
FEW = {
    "narrow": CUT,
    "distil": f"{CUT}, {{distill: {{{LEARN}}}}}",
    "distil-mixup": f"{CUT}, {{distill: {{{LEARN}, {MIXED}}}}}",
    "distil-moved": f"{CUT}, {{distill: {{{LEARN}, {MOVED}}}}}",
    "hints-mixup": f"{CUT}, {{hints: {{{LEARN}, {MIXED}}}}}",
    "attention-mixup": f"{CUT}, {{hints: {{transfer: attention, {LEARN}, {MIXED}}}}}",
    "factor-weights": "{factorize: {budget: 0.5, aware: false}}",
    "factor-answers": "{factorize: {budget: 0.5}}",
    "factor-space": "{factorize: {budget: 0.5, scheme: spatial}}",
    "factor-tucker": "{factorize: {budget: 0.5, scheme: tucker}}",
}
FEW_RECIPES = "---".join(f"\nname: {name}\npasses: [{steps}, export]\n" for name, steps in FEW.items())


def convnet() -> nn.Module:
    """Return six 3x3 convolutions of 32 to 128 channels and two linear layers, for images of 1x28x28."""
    layers: list[nn.Module] = []
    before = 1
    for width in (32, 64, 128):
        for channels in (before, width):
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
        before = width
    head = [nn.Flatten(), nn.Linear(128 * 9, 256), nn.ReLU(), nn.Dropout(0.2), nn.Linear(256, 10)]
    return nn.Sequential(*layers, *head)


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    path: Path
    correct: int


def main() -> None:
    """Train, compress, measure and print."""
    arguments, started = parse(), time.monotonic()
    training = fashion(arguments.data, "train")
    training, test = held_out(training) if arguments.choose else (training, fashion(arguments.data, "t10k"))
    if arguments.quick:
        training, test = training.first(2000), test.first(1000)
    with tempfile.TemporaryDirectory() as work:
        context = Context(
            workspace=Path(work),
            calibration=training.first(512),
            training=training,
            progress=print_progress,
            seed=SEED,
            threads=arguments.threads,
        )
        module = trained(training, context, arguments)
        model = model_of(module, training)
        context = replace(context, baseline=module)
        if arguments.few:
            few = DataSet(training.first(arguments.few).inputs)
            context = replace(context, calibration=few, training=None)
        memo = Memo()
        rows = [measured("baseline", Export(), model, memo, context, test)]
        for name, recipe in recipes(arguments, Path(work)).items():
            rows.append(measured(name, recipe, model, memo, context, test))
        print_table(rows, test, 0.3 if arguments.quick else arguments.seconds)
    wall, busy = time.monotonic() - started, time.process_time()
    print(f"{wall:.0f} s in all, {busy:.0f} s of processor time; {arguments.threads} threads to train")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    home = os.environ.get("FLYWEIGHT_DATA", "/usr/share/datasets")
    parser.add_argument("--data", type=Path, default=Path(home), help="folder of data (or FLYWEIGHT_DATA)")
    parser.add_argument("--recipes", type=Path, help="other recipes, as YAML")
    parser.add_argument("--few", type=int, help="give recipes only so many samples, without labels")
    parser.add_argument("--weights", type=Path, help="baseline's weights: read if there, else written")
    parser.add_argument("--epochs", type=int, help="of each student (14; 100 with --few)")
    parser.add_argument("--threads", type=int, default=2, help="for training")
    parser.add_argument(
        "--choose",
        action="store_true",
        help="judge on 10,000 training images left out, not on the test images",
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="of timing for each batch and variant")
    parser.add_argument("--quick", action="store_true", help="2,000 images, one epoch: shows that it works")
    return parser.parse_args()


def fashion(folder: Path, part: str) -> DataSet:
    """Read a part of Fashion-MNIST: images of 1x28x28 from -1 to 1, and labels."""
    folder = (folder if (folder / "fashion-mnist").is_dir() else USUAL_FOLDER) / "fashion-mnist"
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return DataSet({"image": (pixels / 127.5 - 1).astype(np.float32)}, labels)


def held_out(training: DataSet) -> tuple[DataSet, DataSet]:
    """Return all but the last training images, and those, to choose recipes by."""
    kept, labels = training.samples - CHOOSING_ROWS, training.labels
    assert labels is not None
    return training.first(kept), DataSet(training.rows(kept, training.samples), labels[kept:])


def trained(data: DataSet, context: Context, arguments: argparse.Namespace) -> nn.Module:
    """Return the baseline: three epochs, or the weights that an earlier run wrote."""
    with seeded(SEED):
        module = convnet()
    if arguments.weights and arguments.weights.exists():
        module.load_state_dict(load_file(arguments.weights))
        return module.eval()
    settings = TrainingSettings(epochs=1 if arguments.quick else 3, held_out=0.0)
    train(module, rows_of(data, ["image"]), TrainingLoss(), settings, context)
    if arguments.weights:
        save_file(module.state_dict(), arguments.weights)
    return module


def recipes(arguments: argparse.Namespace, work: Path) -> Mapping[str, Pass]:
    """Return the recipes by the names of their variants."""
    if arguments.recipes:
        return load_recipes(arguments.recipes)
    file = work / "recipes.yaml"
    text = FEW_RECIPES if arguments.few else RECIPES
    epochs = arguments.epochs or (100 if arguments.few else 14)
    file.write_text(text.replace("EPOCHS", "1" if arguments.quick else str(epochs)))
    return load_recipes(file)


def measured(name: str, recipe: Pass, model: Model, memo: Memo, context: Context, test: DataSet) -> Row:
    """Make a variant and count the test images it knows."""
    result = memo.apply(recipe, model, context)
    for note in result.notes:
        print(f"{name}: {note}")
    path = result.model.onnx_path()
    session = Session(path, SessionSettings())
    assert test.labels is not None
    correct = 0
    for start in range(0, test.samples, 500):
        answers = session.run(test.rows(start, start + 500))["output"].argmax(axis=1)
        correct += int((answers == test.labels[start : start + 500]).sum())
    return Row(name, path, correct)


def print_table(rows: list[Row], test: DataSet, seconds: float) -> None:
    """Time every variant in turns with the baseline, and print all figures."""
    first = rows[0]
    print(
        f"\n{'variant':24} {'accuracy':>8} {'95 % interval':>16} {'points':>7} {'bytes':>10} {'smaller':>8}",
        end="",
    )
    print("".join(f" {f'faster x{batch}':>10} {'us':>8}" for batch in BATCHES))
    for row in rows:
        low, high = wilson(row.correct, test.samples)
        size, whole = row.path.stat().st_size, first.path.stat().st_size
        points = 100 * (row.correct - first.correct) / test.samples
        print(
            f"{row.name:24} {row.correct / test.samples:8.2%} {low:7.2%}-{high:7.2%} {points:+7.2f} "
            f"{size:10,} {whole / size:7.1f}x",
            end="",
        )
        for batch in BATCHES:
            feed = {name: np.ascontiguousarray(array) for name, array in test.rows(0, batch).items()}
            baseline, variant = (
                Session(path, SessionSettings()).runner(feed) for path in (first.path, row.path)
            )
            point = time_in_turns(batch, baseline, variant, seconds)
            print(f" {point.speedup:9.1f}x {1e6 * point.p50_seconds:8.0f}", end="")
        print()


def print_progress(what: str, done: int, total: int) -> None:
    """Print one line for each epoch."""
    if what == "training":
        print(f"{what} {done}/{total}", flush=True)


if __name__ == "__main__":
    main()
