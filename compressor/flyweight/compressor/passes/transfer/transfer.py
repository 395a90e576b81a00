"""Transfer learning: a trained module for another task, before it is compressed."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from flyweight.compressor.context import Context, Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.base import PassResult, PassSequence
from flyweight.compressor.passes.distill.soft_labels import FineTune
from flyweight.compressor.passes.transfer.freezing import Freeze
from flyweight.compressor.passes.transfer.heads import ReplaceHead
from flyweight.compressor.training import TrainingSettings

HEAD_TRAINING: Final = TrainingSettings(epochs=5, learning_rate=5e-3)
"""A linear layer on fixed features: a convex problem, which takes a high rate."""

WHOLE_TRAINING: Final = TrainingSettings(epochs=5, learning_rate=2e-4)
"""A tenth of what a network learns with from scratch, so that it keeps what it knows."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """How a module is turned to another task.

    Attributes:
        classes: of the new head; None takes them from the labels.
        head: the name of the layer to replace; empty for the last that could be one.
        frozen: globs over names of layers that the first training leaves as they are, the head excepted.
        head_training: with those layers frozen.
        whole_training: with all layers, afterwards; None to leave the frozen layers as they were.
    """

    classes: int | None = None
    head: str = ""
    frozen: tuple[str, ...] = ("*",)
    head_training: TrainingSettings = HEAD_TRAINING
    whole_training: TrainingSettings | None = WHOLE_TRAINING

    def __post_init__(self) -> None:
        """Check that something is left alone at first.

        Raises:
            RecipeError: no layer is named.
        """
        if not self.frozen:
            raise RecipeError(
                "Transfer freezes some layers at first; name them, or '*' for all but its head."
            )

    def passes(self) -> PassSequence:
        """Return the recipe: a new head, trained alone, then with the others."""
        steps = [ReplaceHead(self.classes, self.head), Freeze(self.frozen), FineTune(self.head_training)]
        if self.whole_training is not None:
            steps += [Freeze(()), FineTune(self.whole_training)]
        return PassSequence(steps)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where a transfer runs: its seed, its threads, who hears of it, and until when it may take."""

    seed: int = 0
    threads: int = 1
    progress: Progress = silent
    deadline: float = float("inf")


def transfer(
    model: Model,
    data: DataSet,
    settings: TransferSettings | None = None,
    surroundings: Surroundings | None = None,
) -> PassResult:
    """Return a module that has learnt the classes of `data`, which compression then starts from.

    It becomes the baseline: variants are compared with it, and distil from it.

    Args:
        model: a torch module, the user's or an imported one.
        data: to learn from, with one integer label a sample.
        settings: how; None takes the defaults.
        surroundings: everything else.

    Raises:
        PassError: the data have no labels, the module has no head, or training diverged.
        OutOfTimeError: the deadline came before a training had done its first epoch.
    """
    place = surroundings or Surroundings()
    chosen = settings or TransferSettings()
    with tempfile.TemporaryDirectory(prefix="flyweight-transfer-") as folder:
        context = Context(
            workspace=Path(folder),
            calibration=data,
            training=data,
            progress=place.progress,
            seed=place.seed,
            threads=place.threads,
            deadline=place.deadline,
        )
        result = chosen.passes()(model, context)
    return replace(result, notes=(f"Transferred to {data.samples} samples of a new task.", *result.notes))
