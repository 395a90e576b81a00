"""The network that the demo compresses: trained on the spot, in about a minute."""

from dataclasses import replace
from pathlib import Path
from typing import Final

from torch import Tensor, nn

from demo.network import DEMO_TRAINING
from demo.settings import DemoSettings, Source
from demo.task import Task
from flyweight.compressor.context import Context, Progress
from flyweight.compressor.training import Rows, TrainingSettings, rows_of, train

# Eighty times as many samples as the digits need fewer passes over them, and two keep the whole demo under
# five minutes on two cores.
_FASHION_EPOCHS: Final = 2


def training_settings(settings: DemoSettings) -> TrainingSettings:
    """Return how long and how fast to train on the data that the settings name."""
    if settings.quick:
        return replace(DEMO_TRAINING, epochs=1)
    if settings.source is Source.FASHION:
        return replace(DEMO_TRAINING, epochs=_FASHION_EPOCHS)
    return DEMO_TRAINING


def train_task(task: Task, settings: DemoSettings, progress: Progress) -> None:
    """Train the task's network in place on its training data, with cross-entropy."""
    context = Context(
        # Training writes no file.
        workspace=Path(),
        calibration=task.training,
        training=task.training,
        progress=progress,
        seed=settings.seed,
        threads=settings.threads,
    )
    rows = rows_of(task.training, list(task.training.inputs))
    train(task.module, rows, cross_entropy, training_settings(settings), context)


def cross_entropy(logits: Tensor, rows: Rows) -> Tensor:
    """Return the mean cross-entropy: logits (rows, classes) against labels (rows,)."""
    assert rows.labels is not None, "the demo's data are labelled"
    return nn.functional.cross_entropy(logits, rows.labels)
