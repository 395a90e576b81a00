"""Every kind of pruning on one convnet and one seed: what goes, what it costs, what ONNX Runtime gains.

A residual convnet is trained on a part of Fashion-MNIST; each row prunes it in another way. Accuracy is that
on test images no pass sees; latency is measured in turns with the baseline, on one thread, at batch 8. Rows
without "retrained" show what pruning alone does, which is where the ways of choosing differ.
"""

import argparse
import gzip
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.latency import time_in_turns
from flyweight.compressor.passes.base import Pass
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.narrow.blocks import DropBlocks
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.sparsify import Criterion, Sparsify
from flyweight.compressor.passes.prune.structured import ChannelImportance, StructuredPrune
from flyweight.compressor.passes.prune.weights import prunable, sparsity
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.training import TrainingSettings, rows_of, seeded, train

BATCH = 8


class Residual(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Return the features, shaped alike."""
        return torch.relu(features + self.second(torch.relu(self.first(features))))


def convnet() -> nn.Module:
    """Return a network of four residual blocks for images of 1x28x28."""
    layers: list[nn.Module] = [
        nn.Conv2d(1, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        Residual(32),
        Residual(32),
    ]
    layers += [nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.ReLU(), Residual(64), Residual(64)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def ways(epochs: int) -> Mapping[str, Pass]:
    """Return what is compared."""
    recovery = TrainingSettings(epochs=epochs, learning_rate=1e-3)
    taylor, unheard = ChannelImportance.TAYLOR, Scope.SENSITIVITY
    return {
        "sparse 70 %, each layer": Sparsify(0.7, scope=Scope.LAYER),
        "sparse 70 %, one threshold": Sparsify(0.7),
        "sparse 70 %, LAMP": Sparsify(0.7, scope=Scope.LAMP),
        "sparse 70 %, Taylor": Sparsify(0.7, criterion=Criterion.TAYLOR),
        "sparse 70 %, sensitivity": Sparsify(0.7, scope=unheard),
        "sparse 2:4": Sparsify(pattern="2:4"),
        "sparse 95 %, retrained": Sparsify(0.95, training=replace(recovery, epochs=3 * epochs)),
        "sparse 95 %, 3 rounds, retrained": Sparsify(0.95, rounds=3, training=recovery),
        "sparse 95 %, gradual, LAMP": Sparsify(
            0.95, scope=Scope.LAMP, gradual=True, training=replace(recovery, epochs=3 * epochs)
        ),
        "channels 25 %, magnitude": StructuredPrune(0.25, round_to=8),
        "channels 25 %, Taylor": StructuredPrune(0.25, taylor, round_to=8),
        "channels 25 %, Taylor, ranked": StructuredPrune(0.25, taylor, round_to=8, scope=Scope.GLOBAL),
        "channels 25 %, sensitivity": StructuredPrune(0.25, taylor, round_to=8, scope=unheard),
        "channels 50 %, retrained": StructuredPrune(
            0.5, taylor, training=replace(recovery, epochs=2 * epochs)
        ),
        "channels 50 %, 2 rounds, retrained": StructuredPrune(0.5, taylor, rounds=2, training=recovery),
        "one block": DropBlocks(1),
        "two blocks, retrained": DropBlocks(2, training=recovery),
    }


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    path: Path
    parameters: int
    zeros: float
    correct: float


def main() -> None:
    """Train, prune, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    home = os.environ.get("FLYWEIGHT_DATA", "/usr/share/datasets")
    parser.add_argument("--data", type=Path, default=Path(home), help="folder of data (or FLYWEIGHT_DATA)")
    parser.add_argument("--images", type=int, default=12_000, help="to train on")
    parser.add_argument("--seconds", type=float, default=1.0, help="of timing for each row")
    parser.add_argument("--quick", action="store_true", help="1,000 images, one epoch: shows that it works")
    arguments = parser.parse_args()
    images = 1000 if arguments.quick else arguments.images
    training, test = (
        fashion(arguments.data, "train").first(images),
        fashion(arguments.data, "t10k").first(5000),
    )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        context = Context(workspace=Path(work), calibration=training.first(256), training=training)
        with seeded(0):
            module = convnet()
        epochs = 1 if arguments.quick else 4
        train(module, rows_of(training, ["image"]), TrainingLoss(), TrainingSettings(epochs=epochs), context)
        context = replace(context, baseline=module)
        model, rows = model_of(module, training), list[Row]()
        for name, way in {"baseline": None, **ways(1)}.items():
            pruned = model if way is None else way(model, context).model
            rows.append(measured(name, pruned.torch_module(), test, context))
            print(f"made: {name}", flush=True)
        print_table(rows, test, arguments.seconds)


def fashion(folder: Path, part: str) -> DataSet:
    """Read a part of Fashion-MNIST: images of 1x28x28 from -1 to 1, and labels."""
    folder = folder / "fashion-mnist"
    with gzip.open(folder / f"{part}-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(folder / f"{part}-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(), np.uint8, offset=8).astype(np.int64)
    return DataSet({"image": (pixels / 127.5 - 1).astype(np.float32)}, labels)


def measured(name: str, module: nn.Module, test: DataSet, context: Context) -> Row:
    """Export a module and count the test images it knows, in ONNX Runtime."""
    path = Export()(model_of(module, test), context).model.onnx_path()
    session = Session(path, SessionSettings())
    assert test.labels is not None
    answers = [session.run(batch)["output"].argmax(axis=1) for batch in test.batches(500)]
    correct = float((np.concatenate(answers) == test.labels).mean())
    weights = prunable(module)
    return Row(name, path, sum(p.numel() for p in module.parameters()), sparsity(module, weights), correct)


def print_table(rows: list[Row], test: DataSet, seconds: float) -> None:
    """Time every row in turns with the baseline, and print all figures."""
    print(f"\n{'':36} {'parameters':>10} {'zeros':>6} {'accuracy':>8} {f'faster x{BATCH}':>10} {'us':>7}")
    feed = {name: np.ascontiguousarray(array) for name, array in test.rows(0, BATCH).items()}
    for row in rows:
        runs = [Session(path, SessionSettings()).runner(feed) for path in (rows[0].path, row.path)]
        point = time_in_turns(BATCH, runs[0], runs[1], seconds)
        print(
            f"{row.name:36} {row.parameters:10,} {row.zeros:6.0%} {row.correct:8.2%} "
            f"{point.speedup:9.2f}x {1e6 * point.p50_seconds:7.0f}"
        )


if __name__ == "__main__":
    main()
