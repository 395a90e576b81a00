"""How long and how fast to train."""

from dataclasses import dataclass
from enum import Enum

from flyweight.compressor.errors import RecipeError


class Optimizer(Enum):
    """How a step is taken."""

    ADAMW = "adamw"
    SGD = "sgd"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the training rows.
        batch_rows: rows per step; 64 keeps two cores busy on small images and still gives enough steps on a
            thousand rows.
        learning_rate: at its peak. 2e-3 suits AdamW on small networks from scratch; fine-tuning wants less.
        weight_decay: of matrices and filters only; biases and normalisation are not decayed.
        optimizer: AdamW needs no tuning per architecture; SGD with Nesterov momentum 0.9 for those who tune.
        warmup: fraction of the steps in which the rate rises; it falls along a cosine to zero after that.
            Some is needed: batch statistics of a cut or new network are far off in the first steps.
        label_smoothing: of integer labels; 0 trains on them as they are.
        held_out: fraction of the rows that is never trained on and chooses the best epoch. None are held out
            when that would be fewer than 32, whose score would be mostly chance: the last epoch is kept.
    """

    epochs: int = 12
    batch_rows: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimizer: Optimizer = Optimizer.ADAMW
    warmup: float = 0.1
    label_smoothing: float = 0.0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: a value is out of its range.
        """
        checks = {
            "epochs must be at least 1": self.epochs >= 1,
            "batch_rows must be at least 2": self.batch_rows >= 2,
            "learning_rate must be above 0": self.learning_rate > 0,
            "weight_decay must not be negative": self.weight_decay >= 0,
            "warmup must be from 0 to below 1": 0 <= self.warmup < 1,
            "label_smoothing must be from 0 to below 1": 0 <= self.label_smoothing < 1,
            "held_out must be from 0 to 0.5": 0 <= self.held_out <= 0.5,
        }
        for rule, kept in checks.items():
            if not kept:
                raise RecipeError(f"In the training settings, {rule}.")
