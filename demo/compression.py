"""The task's network compressed into six kinds of variant, through flyweight's public interface."""

from dataclasses import replace
from typing import Any, Final

from demo.settings import DemoSettings, Source
from demo.task import Task
from demo.training import training_settings
from flyweight.compressor.compression import compress
from flyweight.compressor.context import Progress
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.options import Options
from flyweight.compressor.torch_model import model_of
from flyweight.compressor.torch_recipes import TorchRecipeSettings, default_torch_recipes

QUICK_NOTE: Final = "A quick run: it shows that everything works, its figures mean little."
# How much of its accuracy a variant may lose, where a hundredth is the default: the demo is there to show
# small losses too. The 120 crops of ten photographs judge less surely than a thousand digits.
_LARGEST_LOSS: Final = {Source.DIGITS: 0.02, Source.FASHION: 0.02, Source.IMAGENET: 0.05}
# For a quick run: it trains too little for any quality, and times too little for any speed.
_QUICK_LIMITS: Final = Limits(max_drop=1.0, max_slowdown=3.0)
_SECONDS_PER_POINT, _QUICK_SECONDS_PER_POINT = 1.0, 0.1
# Six variants are examined, and nobody waits five minutes for a demo.
_EXAMINATION: Final = EvaluationSettings(examination_seconds=4.0)


def compress_task(task: Task, settings: DemoSettings, progress: Progress) -> dict[str, Any]:
    """Publish the baseline and every variant that does no harm; return the document of the compression."""
    report = compress(
        model_of(task.module, task.training),
        default_torch_recipes(recipe_settings(settings)),
        data=task.evaluation,
        repository=settings.repository,
        name=settings.model,
        options=Options(
            training=task.training,
            limits=_QUICK_LIMITS if settings.quick else Limits(max_drop=_LARGEST_LOSS[settings.source]),
            threads=1,
            seed=settings.seed,
            seconds_per_point=_QUICK_SECONDS_PER_POINT if settings.quick else _SECONDS_PER_POINT,
            progress=progress,
            evaluation=EvaluationSettings.quick() if settings.quick else _EXAMINATION,
            explain=not settings.quick,
        ),
    )
    document = report.document()
    document["data"]["name"] = task.description
    document["note"] = " ".join((*task.notes, *([QUICK_NOTE] if settings.quick else [])))
    return document


def recipe_settings(settings: DemoSettings) -> TorchRecipeSettings:
    """Return how long pruned and distilled networks learn: as long as the baseline where it learned here."""
    defaults = TorchRecipeSettings()
    if not settings.quick and settings.source is Source.DIGITS:
        return defaults
    epochs = training_settings(settings).epochs if settings.source is not Source.IMAGENET else 2
    if settings.quick:
        epochs = 1
    return replace(
        defaults,
        fine_tuning=replace(defaults.fine_tuning, epochs=epochs),
        student_training=replace(defaults.student_training, epochs=epochs),
    )
