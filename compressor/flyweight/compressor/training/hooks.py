"""What a caller of the trainer may do inside its loop."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from flyweight.compressor.training.rows import Rows


@dataclass(frozen=True, slots=True)
class TrainingHooks:
    """What happens inside the training loop beside steps down the loss; every part may be left out.

    Attributes:
        after_step: called with the trained module after every optimiser step, with the gradients of that
            step still in place: to set pruned weights to zero again, to tie weights to
            their codebook, to follow the ranges of activations. What it does to parameters, do under
            torch.no_grad() and in place. It is also called once before the first step, so that what it
            guarantees holds from the start.
        before_step: makes the rows of a step out of those drawn for it (augmentation); the generator is the
            run's own. Held-out rows are not changed.
        parameters: further parameters to train, which are not the module's: regressors of features, scales.
            They are moved to the module's device and are not part of the kept weights.
    """

    after_step: Callable[[nn.Module], None] | None = None
    before_step: Callable[[Rows, torch.Generator], Rows] | None = None
    parameters: tuple[nn.Parameter, ...] = ()
