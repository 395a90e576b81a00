"""Gradual pruning: within one training more and more weights become zero, and stay so."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor, nn

from flyweight.compressor.passes.prune.masks import Mask
from flyweight.compressor.passes.prune.schedule import cubic_at
from flyweight.compressor.passes.prune.weights import apply_masks, as_tensors
from flyweight.compressor.training.schedule import epochs_in_time

UNTIL: Final = 0.6
"""The part of the steps by which all zeros are there; in the rest what stays gets over the last of them."""

UPDATES: Final = 60
"""How often the weights that go are chosen anew: Zhu and Gupta 2017 (section 3) choose every 100 to 1000 of
some 10,000 to 100,000 steps."""


@dataclass(slots=True)
class Thinning:
    """What the trainer calls after every step: the zeros grow along `cubic_at`, and are held.

    Where the trainer plans fewer epochs because the time is short, the zeros grow faster. For one training,
    from one thread.

    Attributes:
        masks_at: the masks of a module when this part of the asked sparsity, from 0 to 1, is due.
        epochs: that are planned.
        steps_per_epoch: of the trainer, at least 1.
        remaining_seconds: until the time limit; infinite without one.
        reached: the part of the asked sparsity that is reached.
    """

    masks_at: Callable[[nn.Module, float], Mapping[str, Mask]]
    epochs: int
    steps_per_epoch: int
    remaining_seconds: Callable[[], float]
    reached: float = field(default=0.0, init=False)
    _step: int = field(default=0, init=False)
    _masks: dict[str, Tensor] = field(default_factory=dict, init=False)
    _began: float = field(default_factory=time.monotonic, init=False)

    def __call__(self, module: nn.Module) -> None:
        """Hold the zeros, and add to them when it is time."""
        apply_masks(module, self._masks)
        done, into_epoch = divmod(self._step, self.steps_per_epoch)
        if done and not into_epoch:
            used = time.monotonic() - self._began
            self.epochs = epochs_in_time(done, self.epochs, used, self.remaining_seconds())
        last = max(1, round(UNTIL * self.epochs * self.steps_per_epoch))
        part = min(1.0, self._step / last)
        if self.reached < 1.0 and (part == 1.0 or self._step % max(1, last // UPDATES) == 0):
            self._grow(module, cubic_at(part))
        self._step += 1

    def finish(self, module: nn.Module) -> None:
        """Add what is missing, after a training that ended early and went back to an earlier epoch."""
        apply_masks(module, self._masks)
        if self.reached < 1.0:
            self._grow(module, 1.0)

    def _grow(self, module: nn.Module, reached: float) -> None:
        self.reached = reached
        self._masks = as_tensors(self.masks_at(module, reached))
        apply_masks(module, self._masks)
