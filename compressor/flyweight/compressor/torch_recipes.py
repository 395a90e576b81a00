"""The recipes that a torch module gets when its owner names none: six kinds of variant."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from flyweight.compressor.passes.base import PassSequence
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.passes.distill.soft_labels import (
    RECOVERY,
    STUDENT,
    FineTune,
    SoftLabelDistillation,
)
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.narrow.strides import PoolToStride
from flyweight.compressor.passes.narrow.width import NarrowWidth
from flyweight.compressor.passes.prune.structured import ChannelImportance, StructuredPrune
from flyweight.compressor.passes.quantize.dynamic_int8 import DynamicInt8
from flyweight.compressor.passes.quantize.fp16 import Fp16Storage
from flyweight.compressor.passes.quantize.static_int8 import StaticInt8
from flyweight.compressor.training import TrainingSettings

BASELINE: Final = PassSequence([Export()])
"""The original, exported: what every variant is compared with."""


@dataclass(frozen=True, slots=True)
class TorchRecipeSettings:
    """What the six recipes may be told.

    Attributes:
        prune_ratio: fraction of the channels that `pruned` and `pruned-int8` lose.
        importance: which channels they lose.
        fine_tuning: how they recover.
        student_width: fraction of the channels that the `distilled` student has: fewer than `pruned`, but
            not so few that a small network loses a point of accuracy with them.
        warm_start: whether the student starts from the original's strongest channels.
        student_training: how the student is trained.
        distillation: how much both listen to the original.
    """

    prune_ratio: float = 0.5
    importance: ChannelImportance = ChannelImportance.MAGNITUDE
    fine_tuning: TrainingSettings = RECOVERY
    student_width: float = 0.375
    warm_start: bool = True
    student_training: TrainingSettings = STUDENT
    distillation: Distillation = field(default_factory=Distillation)


def compact_torch_recipes(settings: TorchRecipeSettings | None = None) -> Mapping[str, PassSequence]:
    """Return the recipes for the smallest and fastest variants, which learn longest, by their names.

    `distilled-int8` costs next to nothing beside `distilled`, whose training a Memo remembers. `compact` also
    does the work of its poolings with strides, so that its early layers, which are most of the latency of a
    small convnet, run on a quarter of the places; a module without such poolings is refused at once.
    """
    chosen = settings if settings is not None else TorchRecipeSettings()
    learn = SoftLabelDistillation(chosen.student_training, chosen.distillation)
    narrow, export = NarrowWidth(chosen.student_width, chosen.warm_start), Export()
    return {
        "distilled-int8": PassSequence([narrow, learn, export, StaticInt8()]),
        "compact": PassSequence([PoolToStride(), narrow, learn, export, StaticInt8()]),
    }


def default_torch_recipes(settings: TorchRecipeSettings | None = None) -> Mapping[str, PassSequence]:
    """Return the recipes by the name of the variant they make, cheapest first.

    Recipes that begin alike hold equal passes, so that a Memo trains and exports once for all of them.
    """
    chosen = settings if settings is not None else TorchRecipeSettings()
    export = Export()
    pruned = [
        StructuredPrune(chosen.prune_ratio, chosen.importance),
        FineTune(chosen.fine_tuning, chosen.distillation),
        export,
    ]
    student = [
        NarrowWidth(chosen.student_width, chosen.warm_start),
        SoftLabelDistillation(chosen.student_training, chosen.distillation),
        export,
    ]
    return {
        "int8": PassSequence([export, StaticInt8()]),
        "int8-dynamic": PassSequence([export, DynamicInt8()]),
        "fp16": PassSequence([export, Fp16Storage()]),
        "pruned": PassSequence(pruned),
        "pruned-int8": PassSequence([*pruned, StaticInt8()]),
        "distilled": PassSequence(student),
    }
