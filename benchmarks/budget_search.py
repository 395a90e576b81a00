"""Search for a budget on scikit-learn's digits: the genetic algorithm and TPE side by side.

python benchmarks/budget_search.py --trials 24
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from flyweight.compressor.caching import Cache
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.bench import BenchSettings
from flyweight.compressor.model import Model, example_of
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.outcome import SearchOutcome
from flyweight.compressor.search.sampler_settings import SamplerSettings
from flyweight.compressor.search.search import SearchData, SearchSettings, search
from flyweight.compressor.search.study import StudyPlace
from flyweight.compressor.training import TrainingSettings, rows_of, train

BUDGET = "latency<=60%, size<=30%, accuracy>=-1pt"


def digits() -> tuple[DataSet, DataSet]:
    """Return 1,000 images to train on and 797 to judge with."""
    pixels, labels = load_digits(return_X_y=True)
    pixels = (pixels / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    return DataSet({"image": pixels[:1000]}, labels[:1000]), DataSet({"image": pixels[1000:]}, labels[1000:])


def network() -> nn.Module:
    """Return an untrained convnet for them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def show(name: str, outcome: SearchOutcome, seconds: float) -> None:
    """Print what one search came to, on the data it did not see."""
    print(f"\n{name}: {len(outcome.tried)} recipes in {seconds:.0f} s. {outcome.sentence}")
    for trial in outcome.pareto:
        if trial.verified is not None and outcome.reference is not None:
            found, base = trial.verified, outcome.reference
            print(
                f"  {trial.name:28} {found.speedup:5.2f} times as fast  "
                f"{found.file_bytes / base.file_bytes:6.1%} of the bytes  "
                f"accuracy {found.quality.value:.4f} against {found.quality.baseline_value:.4f}"
            )


def main() -> None:
    """Search by each algorithm and print."""
    parser = argparse.ArgumentParser(description="Search for a budget on digits.")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--quick", action="store_true", help="six trials of the genetic algorithm alone")
    options = parser.parse_args()
    torch.set_num_threads(1)
    training, evaluation = digits()
    module, folder = network(), Path(tempfile.mkdtemp(prefix="flyweight-benchmark-"))
    context = Context(workspace=folder, calibration=training.first(256), training=training, baseline=module)
    train(module, rows_of(training, ["image"]), TrainingLoss(), TrainingSettings(12), context)
    source = Model(module=module.eval(), example=example_of(training.inputs))
    for algorithm in ("nsga2",) if options.quick else ("nsga2", "tpe"):
        started = time.monotonic()
        settings = SearchSettings(
            trials=6 if options.quick else options.trials,
            sampler=SamplerSettings(algorithm),
            study=StudyPlace(folder / algorithm),
            cache=Cache(folder / f"cache-{algorithm}"),
            bench=BenchSettings(seconds_per_point=0.3),
        )
        outcome = search(source, Budget.parse(options.budget), SearchData.of(evaluation), context, settings)
        show(algorithm, outcome, time.monotonic() - started)


if __name__ == "__main__":
    main()
