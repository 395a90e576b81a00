"""Who gets which samples."""

import numpy as np
import pytest

from flyweight.compressor.data import DataSet
from flyweight.compressor.division import divide
from flyweight.compressor.options import Options


def numbers(samples: int) -> DataSet:
    return DataSet({"x": np.arange(samples)})


def test_calibration_and_evaluation_share_no_sample() -> None:
    division = divide(numbers(100), Options(), trains=False)
    assert (division.calibration.samples, division.evaluation.samples) == (25, 75)
    assert not set(division.calibration.inputs["x"]) & set(division.evaluation.inputs["x"])
    assert division.training is None


def test_calibration_takes_no_more_than_it_needs() -> None:
    division = divide(numbers(10_000), Options(calibration_samples=100), trains=False)
    assert (division.calibration.samples, division.evaluation.samples) == (100, 9900)


def test_a_small_set_serves_every_purpose_and_says_so() -> None:
    division = divide(numbers(10), Options(), trains=False)
    assert division.calibration.samples == division.evaluation.samples == 10
    assert "With only 10 samples" in division.notes[0]


def test_with_training_data_all_of_the_others_judge() -> None:
    division = divide(numbers(50), Options(training=numbers(200), calibration_samples=64), trains=False)
    assert division.evaluation.samples == 50
    assert division.calibration.samples == 64
    assert division.training is not None
    assert division.training.samples == 200


def test_a_torch_module_trains_on_half() -> None:
    division = divide(numbers(100), Options(calibration_samples=20), trains=True)
    assert division.training is not None
    assert (division.training.samples, division.calibration.samples, division.evaluation.samples) == (
        50,
        20,
        50,
    )
    assert set(division.calibration.inputs["x"]) <= set(division.training.inputs["x"])


@pytest.mark.parametrize("samples", [40, 64, 100])
def test_a_model_of_fixed_rows_gets_whole_groups(samples: int) -> None:
    division = divide(numbers(samples), Options(), trains=False, rows=32)
    assert division.calibration.samples >= 32
    assert division.evaluation.samples >= 32


def test_the_seed_decides() -> None:
    first, second, other = (
        divide(numbers(100), Options(seed=seed), trains=False).calibration.inputs["x"].tolist()
        for seed in (0, 0, 1)
    )
    assert first == second
    assert first != other
