"""Unstructured pruning of a torch module: single weights become zero, with or without retraining."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.losses import Distillation
from flyweight.compressor.passes.prune.allocation import Point
from flyweight.compressor.passes.prune.choice import Target, choose, combined, measured_curves
from flyweight.compressor.passes.prune.masks import Mask, Scores, parse_pattern
from flyweight.compressor.passes.prune.retraining import Harm, Retraining
from flyweight.compressor.passes.prune.saliency import accumulate_gradients
from flyweight.compressor.passes.prune.schedule import cubic_schedule, require_rounds
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.thinning import Thinning
from flyweight.compressor.passes.prune.weights import (
    Weight,
    apply_masks,
    as_tensors,
    holding,
    prunable,
    sparsity,
    values_of,
)
from flyweight.compressor.training import TrainingHooks, TrainingSettings, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

MIXED: Final = Distillation()


class Criterion(Enum):
    """What a weight is worth."""

    MAGNITUDE = "magnitude"
    """|w| (Han et al. 2015, section 3)."""

    TAYLOR = "taylor"
    """|w dL/dw|, the loss's change without it to first order (Molchanov et al. 2017; see `saliency`)."""


@dataclass(frozen=True, slots=True)
class Sparsify(Pass):
    """Sets the least important weights of convolutions, linear and recurrent layers to zero.

    The shapes stay, so the network is not faster in ONNX Runtime; it is what `share` and `encode` make small.
    Weights that are zero already stay so. A later pass that trains would fill the zeros again: let this
    one train.

    Attributes:
        ratio: fraction of the weights that becomes zero, at least 0, below 1.
        threshold: instead, weights of a criterion up to this become zero.
        pattern: instead, N:M such as "2:4": N of every M weights along the input channels stay.
        scope: whether each layer loses `ratio`, one threshold cuts across all layers, on weights (global) or
            on their part of what the layer has left (lamp), or each layer's ratio follows from the measured
            harm of pruning it alone. One threshold on weights is the default: it was best in one shot
            wherever layers differ in size, and costs nothing. Where nearly all weights go, lamp lets no layer
            run dry.
        criterion: what a weight is worth.
        rounds: in how many steps, by `cubic_schedule`; more than one needs `training`. A pattern's rounds
            keep one weight of every M less each: 3:4, then 2:4.
        gradual: grow the zeros within one `training` instead of rounds of it, along `cubic_at` in the first
            60 % of its steps, and hold them in the rest. Off by default: only rounds serve patterns,
            measured harm and Taylor, and choose the best epoch. Here no rows are held out, as an earlier
            epoch, with fewer zeros, would win.
        training: after each round, zeros held at zero; None leaves the weights that stay as they are.
        distillation: how much that listens to the original.
    """

    name: ClassVar[str] = "sparsify"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    ratio: float = 0.8
    threshold: float | None = None
    pattern: str | None = None
    scope: Scope = Scope.GLOBAL
    criterion: Criterion = Criterion.MAGNITUDE
    rounds: int = 1
    gradual: bool = False
    training: TrainingSettings | None = None
    distillation: Distillation = MIXED

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one is out of its range, or rounds are asked for where they have no meaning.
        """
        self._target()
        require_rounds(self.rounds)
        if self.rounds > 1 and self.training is None:
            raise RecipeError("Pruning in rounds needs training between them; give `training`, or one round.")
        if self.gradual:
            self._require_gradual()

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a sparse copy of the module.

        Raises:
            PassError: it has no weights to prune, or retraining has nothing to learn from.
        """
        module = copy.deepcopy(model.torch_module())
        weights = prunable(module)
        if not weights:
            raise PassError(
                "The module has no convolution, linear or recurrent layer whose weights could go."
            )
        before = sparsity(module, weights)
        with threads(context.threads):
            prune = self._gradually if self.gradual else self._in_rounds
            notes = prune(replace(model, module=module), weights, context)
        after = sparsity(module, weights)
        if after <= before and not self.training:
            return PassResult(model, changed=False, notes=("Every weight asked for was zero already.",))
        return PassResult(
            replace(model, module=module), changed=True, notes=(self._describe(module, weights), *notes)
        )

    def _in_rounds(self, model: "Model", weights: tuple[Weight, ...], context: "Context") -> tuple[str, ...]:
        """Prune the model's module in place and return what its last training says."""
        module, notes = model.torch_module(), tuple[str, ...]()
        retrain = self.training and Retraining(model, context, self.training, self.distillation)
        for target in self._targets():
            context.check_time()
            masks = as_tensors(self._masks(model, weights, target, context))
            apply_masks(module, masks)
            if retrain:
                notes = retrain(module, holding(masks))
        return notes

    def _gradually(self, model: "Model", weights: tuple[Weight, ...], context: "Context") -> tuple[str, ...]:
        """Prune the model's module in place while it is trained, and return sentences for the report."""
        assert self.training is not None, "_require_gradual"
        settings = replace(self.training, held_out=0.0)
        retrain = Retraining(model, context, settings, self.distillation)
        rows, target = len(retrain.lesson().rows), self._target()

        def masks_at(module: nn.Module, part: float) -> Mapping[str, Mask]:
            return self._masks(replace(model, module=module), weights, target.part(part), context)

        per_epoch = max(1, rows // min(settings.batch_rows, rows))
        thinning = Thinning(masks_at, settings.epochs, per_epoch, context.remaining_seconds)
        trained = retrain.train(model.torch_module(), TrainingHooks(after_step=thinning))
        reached = thinning.reached
        thinning.finish(model.torch_module())
        notes = [
            *retrain.lesson().notes,
            f"Thinned in {trained.epochs} epochs of training on {rows} samples.",
        ]
        if reached < 1.0:
            notes.append(
                f"The time limit came at {reached:.0%} of the zeros; the others were not trained for."
            )
        return tuple(notes)

    def _require_gradual(self) -> None:
        """Check what thinning within one training can go by: what costs little in every step.

        Raises:
            RecipeError: it cannot go by what is asked.
        """
        if self.training is None or self.rounds > 1:
            raise RecipeError("Gradual pruning goes on within one training; give `training`, and one round.")
        if self.pattern is not None or self.scope is Scope.SENSITIVITY or self.criterion is Criterion.TAYLOR:
            raise RecipeError(
                "Gradual pruning goes by magnitude, with scope layer, global or lamp and no pattern; "
                "ask for `rounds` instead."
            )

    def _target(self) -> Target:
        return Target(self.ratio, self.threshold, self.pattern, self.scope)

    def _targets(self) -> list[Target]:
        """Return what each round aims at."""
        target = self._target()
        if self.pattern is not None:
            pattern = parse_pattern(self.pattern)
            first = min(pattern.kept + self.rounds - 1, pattern.of - 1)
            steps = range(first, pattern.kept - 1, -1)
            return [replace(target, pattern=f"{kept}:{pattern.of}") for kept in steps]
        # With a threshold, |w| up to one that grows: the schedule is that of the threshold.
        return [target.part(part) for part in cubic_schedule(1.0, self.rounds)]

    def _masks(
        self, model: "Model", weights: tuple[Weight, ...], target: Target, context: "Context"
    ) -> dict[str, Mask]:
        module = model.torch_module()
        scores = self._scores(model, weights, context)
        # Views of the module's own memory, so that a trial can be written into it and undone.
        values = {weight.name: values_of(module, weight) for weight in weights}

        def curves() -> Mapping[str, list[Point]]:
            harm = Harm(model, context)

            def harm_without(name: str, mask: Mask) -> float:
                return _tried(module, name, mask, harm)

            def between(done: int, total: int) -> None:
                context.check_time()
                context.progress("measuring layers", done, total)

            return measured_curves(scores, harm_without, between)

        chosen = choose(scores, {weight.name: weight.input_axis for weight in weights}, target, curves)
        return {name: mask & (values[name].cpu().numpy() != 0) for name, mask in chosen.items()}

    def _scores(self, model: "Model", weights: tuple[Weight, ...], context: "Context") -> dict[str, Scores]:
        module = model.torch_module()
        values = {weight.name: values_of(module, weight) for weight in weights}
        worth = {name: value.abs() for name, value in values.items()}
        if self.criterion is Criterion.TAYLOR:
            accumulate_gradients(module, model, context)
            worth = {name: value * _gradient(module, name) for name, value in worth.items()}
            module.zero_grad(set_to_none=True)
        return {name: combined(worth[name].cpu().numpy(), values[name].cpu().numpy() != 0) for name in worth}

    def _describe(self, module: nn.Module, weights: tuple[Weight, ...]) -> str:
        total = sum(values_of(module, weight).numel() for weight in weights)
        layers = {weight.name: sparsity(module, (weight,)) for weight in weights}
        least, most = min(layers, key=layers.__getitem__), max(layers, key=layers.__getitem__)
        rounds = " gradually" if self.gradual else f" in {self.rounds} rounds" if self.rounds > 1 else ""
        return (
            f"{sparsity(module, weights):.1%} of {total:,} weights in {len(layers)} layers are zero{rounds} "
            f"(from {layers[least]:.0%} in {least} to {layers[most]:.0%} in {most})."
        )


def _tried(module: nn.Module, name: str, mask: Mask, harm: Harm) -> float:
    parameter = module.get_parameter(name)
    before = parameter.detach().clone()
    apply_masks(module, {name: torch.from_numpy(mask)})
    try:
        return harm(module)
    finally:
        with torch.no_grad():
            parameter.copy_(before)


def _gradient(module: nn.Module, name: str) -> Tensor:
    gradient = module.get_parameter(name).grad
    assert gradient is not None, "accumulate_gradients leaves one in every parameter"
    return gradient.abs()
