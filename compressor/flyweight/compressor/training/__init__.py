"""A small trainer for passes that learn: seeded, on as many threads as given, keeping the best epoch."""

from flyweight.compressor.training.answers import all_answers, answers, output_of
from flyweight.compressor.training.hooks import TrainingHooks
from flyweight.compressor.training.losses import Loss, WholeLoss
from flyweight.compressor.training.rows import Rows, rows_of, taught, tensor_of
from flyweight.compressor.training.schedule import learning_rate_at
from flyweight.compressor.training.settings import Optimizer, TrainingSettings
from flyweight.compressor.training.statistics import STATISTICS_ROWS, restore_statistics
from flyweight.compressor.training.surroundings import seeded, threads, training_device
from flyweight.compressor.training.trainer import Trained, train

__all__ = [
    "STATISTICS_ROWS",
    "Loss",
    "Optimizer",
    "Rows",
    "Trained",
    "TrainingHooks",
    "TrainingSettings",
    "WholeLoss",
    "all_answers",
    "answers",
    "learning_rate_at",
    "output_of",
    "restore_statistics",
    "rows_of",
    "seeded",
    "taught",
    "tensor_of",
    "threads",
    "train",
    "training_device",
]
