"""Augmentation for distillation from few samples: new inputs that the teacher answers for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.training import Rows, all_answers, training_device

BeforeStep = Callable[[Rows, torch.Generator], Rows]

_SHARE_WITH_LABELS: Final = 0.5
"""Of the steps that are augmented where rows have labels: changed rows are without, and labels must count."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """How the inputs of a step are changed; the teacher answers for the changed ones, so no label is needed.

    A teacher that sees the very input the student sees may be asked about anything near the data (Beyer et
    al. 2022, "Knowledge distillation: A good teacher is patient and consistent", section 3.1): this is what
    makes forty samples worth training on.

    Attributes:
        mixup: x' = l x_i + (1 - l) x_j with l drawn from Beta(mixup, mixup) for each row (Zhang et al. 2018,
            "mixup: Beyond Empirical Risk Minimization", equation 1, without its mixed labels); 0 for none.
        shift: images are moved by up to so many pixels along both axes, their edges repeated.
        flip: whether images are mirrored, left to right, at random.
    """

    mixup: float = 0.0
    shift: int = 0
    flip: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: a value is out of its range.
        """
        if self.mixup < 0 or self.shift < 0:
            raise RecipeError("In the augmentation, mixup and shift must not be negative.")

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return self.mixup > 0 or self.shift > 0 or self.flip

    def hook(self, rows: Rows, teacher: nn.Module | None) -> BeforeStep | None:
        """Return what the trainer calls before its steps, or None where there is nothing to do.

        Raises:
            PassError: there is no teacher who could answer for new inputs, or the inputs are not numbers.
        """
        if not self.changes:
            return None
        if teacher is None:
            raise PassError("Augmentation needs the original to answer for changed inputs; leave it out.")
        if not all(tensor.is_floating_point() for tensor in rows.inputs):
            raise PassError(
                "The model takes integers, which cannot be mixed or moved; leave the augmentation out."
            )
        if (self.shift or self.flip) and not all(tensor.ndim == 4 for tensor in rows.inputs):
            raise PassError("Only images (four axes) can be shifted or flipped; use mixup alone.")
        return _Augmenter(self, teacher.to(training_device()))


@dataclass(frozen=True, slots=True)
class _Augmenter:
    """Changes rows and asks the teacher anew."""

    settings: Augmentation
    teacher: nn.Module

    def __call__(self, rows: Rows, generator: torch.Generator) -> Rows:
        if rows.labels is not None and float(torch.rand((), generator=generator)) >= _SHARE_WITH_LABELS:
            return rows
        inputs = rows.inputs
        if self.settings.flip:
            mirrored = torch.rand(len(rows), generator=generator) < 0.5
            inputs = tuple(_where(mirrored, tensor.flip(-1), tensor) for tensor in inputs)
        if self.settings.shift:
            inputs = shifted(inputs, self.settings.shift, generator)
        if self.settings.mixup:
            inputs = mixed(inputs, self.settings.mixup, generator)
        return Rows(inputs, None, all_answers(self.teacher, inputs, training_device()))


def mixed(inputs: tuple[Tensor, ...], alpha: float, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return every row mixed with another, all its inputs by one weight (Zhang et al. 2018, equation 1)."""
    rows = len(inputs[0])
    # torch cannot draw from Beta with a generator of its own; numpy can.
    seed = int(torch.randint(0, 2**31, (), generator=generator))
    weights = np.random.default_rng(seed).beta(alpha, alpha, rows).astype(np.float32)
    partner = torch.randperm(rows, generator=generator)
    return tuple(_mix(tensor, tensor[partner], torch.from_numpy(weights)) for tensor in inputs)


def _mix(one: Tensor, other: Tensor, weights: Tensor) -> Tensor:
    shares = weights.to(one.dtype).view(-1, *[1] * (one.ndim - 1))
    return shares * one + (1 - shares) * other


def shifted(inputs: tuple[Tensor, ...], most: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Return images moved by one random offset for the whole step, of the same size, edges repeated."""
    down, right = (int(torch.randint(0, 2 * most + 1, (), generator=generator)) for _ in range(2))
    moved = []
    for tensor in inputs:
        wide = nn.functional.pad(tensor, (most, most, most, most), mode="replicate")
        moved.append(wide[..., down : down + tensor.shape[-2], right : right + tensor.shape[-1]])
    return tuple(moved)


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(chosen.view(-1, *[1] * (one.ndim - 1)), one, other)
