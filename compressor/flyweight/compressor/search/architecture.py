"""Architecture search: train a supernet, let NSGA-II look among its sub-networks, cut the chosen one out."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.search.extra import SearchError
from flyweight.compressor.search.sampler_settings import SamplerSettings
from flyweight.compressor.search.space import Parameter
from flyweight.compressor.search.study import Score, Study, StudyPlace
from flyweight.compressor.search.supernet import SubNetwork, Supernet, key_of
from flyweight.compressor.training import (
    Rows,
    TrainingSettings,
    WholeLoss,
    answers,
    restore_statistics,
    threads,
    train,
)

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

# J. Yu and T. Huang, "Universally Slimmable Networks and Improved Training Techniques", ICCV 2019, section
# 3.2: the largest, the smallest and two at random in every step.
_RANDOM_ONES: Final = 2
_POPULATION: Final = 16


class SandwichLoss(WholeLoss):
    """The whole network learns from labels and teacher, sub-networks from the whole network's answers.

    L = (loss(whole) + sum over subs of loss(sub, answers of whole)) / (1 + subs), the sandwich rule with
    in-place distillation (Yu and Huang 2019, sections 3.2 and 3.3); answers are taken without gradients.
    """

    def __init__(self, net: Supernet, distillation: Distillation, seed: int) -> None:
        self._net, self._random = net, random.Random(seed)  # noqa: S311 - no secret
        self._loss = TrainingLoss(distillation)

    def of_all(self, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
        """Return the mean loss of the whole network and of the sub-networks of this step."""
        subs = [self._net.smallest(), *(self._net.draw(self._random) for _ in range(_RANDOM_ONES))]
        total = self._loss.of_all(outputs, rows)
        taught = replace(rows, labels=None, teacher=tuple(output.detach() for output in outputs))
        for sub in subs:
            total = total + self._loss.of_all(self._net.run(sub, rows.inputs), taught)
        return total / (1 + len(subs))


def train_supernet(
    net: Supernet, rows: Rows, settings: TrainingSettings, distillation: Distillation, context: "Context"
) -> None:
    """Train the shared weights in place.

    Raises:
        PassError: training diverged.
        OutOfTimeError: the deadline came before the first epoch was done.
    """
    # No rows are held out: the whole network is never better than before, its sub-networks are.
    chosen = replace(settings, held_out=0.0)
    train(net.module, rows, SandwichLoss(net, distillation, context.seed), chosen, context)


@dataclass(frozen=True, slots=True)
class Found:
    """A sub-network: multiply-adds and parameters as fractions of the whole's, and its loss."""

    sub: SubNetwork
    macs: float
    parameters: float
    loss: float


def search_subnetworks(
    net: Supernet, training: Rows, judging: Rows, trials: int, context: "Context"
) -> tuple[Found, ...]:
    """Return the sub-networks that none beats in multiply-adds, parameters and loss, the smallest first.

    Each is judged with the shared weights, its normalisation estimated anew: nothing is trained. The same
    seed gives the same sub-networks.

    Args:
        net: trained.
        training: rows to estimate statistics from.
        judging: rows the supernet was not trained on, with a teacher or labels.
        trials: sub-networks to judge.
        context: its workspace holds the study.

    Raises:
        OutOfTimeError: the deadline came.
        SearchError: Optuna is not installed.
    """
    whole_macs, whole_parameters = net.costs(SubNetwork())
    parameters = [Parameter(key_of(d), len(d.values), ordered=True) for d in net.dimensions]
    loss = TrainingLoss()

    def judge(genes: Mapping[str, int]) -> Score:
        context.check_time()
        sub = SubNetwork(dict(genes))
        macs, held = net.costs(sub)
        module = net.masked(sub)
        restore_statistics(module, training, torch.device("cpu"))
        found = float(loss.of_all((answers(module, judging.inputs),), _first_output(judging)))
        return Score((macs / max(whole_macs, 1), held / whole_parameters, found), {})

    place = StudyPlace(_folder(context))
    starters = [{p.name: 0 for p in parameters}, dict(net.smallest().places)]
    study = Study(
        place,
        {"model": "supernet"},
        parameters,
        SamplerSettings("nsga2", context.seed, _POPULATION),
        starters,
    )
    try:
        with threads(context.threads):
            study.run(judge, trials, lambda: False)
        tried = [Found(SubNetwork(dict(done.genes)), *done.score.values) for done in study.finished()]
    finally:
        study.close()
    front = [found for found in tried if not any(_beats(other, found) for other in tried)]
    unique = {tuple(sorted(found.sub.places.items())): found for found in front}
    return tuple(sorted(unique.values(), key=lambda found: (found.macs, found.loss)))


def choose(front: tuple[Found, ...], macs: float) -> Found:
    """Return the sub-network of least loss with at most `macs` of the whole's multiply-adds.

    Raises:
        SearchError: none is as small.
    """
    small = [found for found in front if found.macs <= macs]
    if not small:
        least = min(found.macs for found in front)
        raise SearchError(
            f"No sub-network has {macs:.0%} of the multiply-adds or less; the smallest that was found has "
            f"{least:.0%}."
        )
    return min(small, key=lambda found: found.loss)


def _beats(other: Found, found: Found) -> bool:
    theirs, ours = (other.macs, other.parameters, other.loss), (found.macs, found.parameters, found.loss)
    return theirs != ours and all(left <= right for left, right in zip(theirs, ours, strict=True))


def _first_output(rows: Rows) -> Rows:
    return rows if rows.teacher is None else replace(rows, teacher=rows.teacher[:1])


def _folder(context: "Context") -> Path:
    return context.new_path("supernet").parent
