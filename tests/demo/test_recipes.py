import pytest

pytest.importorskip("torch")
from demo.compression import recipe_settings
from demo.network import DEMO_TRAINING
from demo.settings import DemoSettings, Source
from demo.training import training_settings
from flyweight.compressor.torch_recipes import TorchRecipeSettings

pytestmark = pytest.mark.torch


def test_digits_take_the_defaults() -> None:
    assert recipe_settings(DemoSettings()) == TorchRecipeSettings()
    assert training_settings(DemoSettings()) == DEMO_TRAINING


@pytest.mark.parametrize("source", list(Source))
def test_a_quick_run_learns_for_one_epoch(source: Source) -> None:
    quick = DemoSettings(source, quick=True)
    assert training_settings(quick).epochs == 1
    assert recipe_settings(quick).fine_tuning.epochs == 1
    assert recipe_settings(quick).student_training.epochs == 1
