"""The six recipes of a torch module, end to end."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from torch import nn

from flyweight.compressor import training
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.passes.base import Form
from flyweight.compressor.passes.distill import soft_labels
from flyweight.compressor.passes.memo import Memo
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.torch_recipes import (
    BASELINE,
    TorchRecipeSettings,
    compact_torch_recipes,
    default_torch_recipes,
)
from flyweight.compressor.training import TrainingSettings

QUICK = TorchRecipeSettings(
    fine_tuning=TrainingSettings(epochs=2, batch_rows=32),
    student_width=0.5,
    student_training=TrainingSettings(epochs=2, batch_rows=32),
)


def test_there_are_six_kinds_and_all_end_in_onnx() -> None:
    recipes = default_torch_recipes()
    assert list(recipes) == ["int8", "int8-dynamic", "fp16", "pruned", "pruned-int8", "distilled"]
    assert all(recipe.needs is Form.TORCH and recipe.gives is Form.ONNX for recipe in recipes.values())


def test_the_compact_kinds_begin_as_the_distilled_one() -> None:
    """So that a memo trains once for distilled and distilled-int8."""
    recipes = compact_torch_recipes()
    assert list(recipes) == ["distilled-int8", "compact"]
    distilled = default_torch_recipes()["distilled"].passes
    assert recipes["distilled-int8"].passes[: len(distilled)] == distilled
    assert [step.name for step in recipes["compact"].passes] == [
        *("pool-to-stride", "narrow", "distill", "export", "static-int8")
    ]


def test_all_six_are_made_and_answer_much_as_the_original(
    residual: nn.Module,
    images: DataSet,
    make_context: Callable[..., Context],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trainings: list[int] = []

    def counted(*arguments: object) -> training.Trained:
        trainings.append(1)
        return training.train(*arguments)

    monkeypatch.setattr(soft_labels, "train", counted)
    context = make_context(baseline=residual)
    model, memo = model_of(residual, images), Memo()
    training.train(
        residual, training.rows_of(images, ["image"]), soft_labels.TrainingLoss(), QUICK.fine_tuning, context
    )
    files = {}
    for name, recipe in {"baseline": BASELINE, **default_torch_recipes(QUICK)}.items():
        path = memo.apply(recipe, model, context).model.onnx_path()
        onnx.checker.check_model(onnx.load(path))
        answers = Session(path, SessionSettings()).run(images.inputs)["output"].argmax(axis=1)
        assert float(np.mean(answers == images.labels)) > 0.9, name
        files[name] = path
    assert len(set(files.values())) == 7
    # One for pruned and pruned-int8 together, one for the student.
    assert len(trainings) == 2
    assert files["pruned"].stat().st_size < files["baseline"].stat().st_size / 2
