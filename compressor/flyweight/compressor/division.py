"""Who gets which samples: passes must not learn from what they are judged on, where there are enough."""

from dataclasses import dataclass
from typing import Final

from flyweight.compressor.data import DataSet
from flyweight.compressor.options import Options

# With fewer samples, a part kept for calibration is missed more in the evaluation than overlap hurts.
_FEWEST_TO_DIVIDE: Final = 40
_CALIBRATION_SHARE: Final = 0.25
_TRAINING_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Division:
    """Samples for each purpose.

    Attributes:
        calibration: to learn ranges of activations from.
        training: to train on; None where nothing trains.
        evaluation: to judge on.
        notes: what a reader of the figures must know.
    """

    calibration: DataSet
    training: DataSet | None
    evaluation: DataSet
    notes: tuple[str, ...] = ()


def divide(data: DataSet, options: Options, *, trains: bool, rows: int | None = None) -> Division:
    """Divide the data.

    With a training set, calibration draws on that and all of `data` is for evaluation. Without one, half of
    `data` is to train and calibrate on where something trains, and a quarter to calibrate on otherwise, at
    most `options.calibration_samples`. Of fewer than 40 samples all serve every purpose, and so they do where
    a model runs exactly `rows` rows at a time and there are too few for two groups.
    """
    wanted, seed = options.calibration_samples, options.seed
    if options.training is not None:
        return Division(_some(options.training, wanted, seed), options.training, data)
    kept = int(data.samples * (_TRAINING_SHARE if trains else min(_CALIBRATION_SHARE, wanted / data.samples)))
    if rows is not None:
        kept = max(kept // rows, 1) * rows
    if data.samples < max(_FEWEST_TO_DIVIDE, kept + (rows or 1)):
        note = f"With only {data.samples} samples, the same served for calibration and evaluation."
        return Division(data.first(wanted), data if trains else None, data, (note,))
    first, evaluation = data.split(kept / data.samples, seed)
    if not trains:
        return Division(first, None, evaluation)
    note = f"No training set was given: {first.samples} samples trained and calibrated, the others judged."
    return Division(_some(first, wanted, seed), first, evaluation, (note,))


def _some(data: DataSet, samples: int, seed: int) -> DataSet:
    return data if data.samples <= samples else data.split(samples / data.samples, seed)[0]
