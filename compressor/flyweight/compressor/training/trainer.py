"""The training loop."""

import copy
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import OutOfTimeError, PassError
from flyweight.compressor.torch_model import outputs_of
from flyweight.compressor.training.hooks import TrainingHooks
from flyweight.compressor.training.losses import Loss, WholeLoss, loss_of
from flyweight.compressor.training.rows import Rows
from flyweight.compressor.training.schedule import epochs_in_time, learning_rate_at
from flyweight.compressor.training.settings import Optimizer, TrainingSettings
from flyweight.compressor.training.statistics import (
    STATISTICS_ROWS,
    hold_frozen_statistics,
    restore_statistics,
)
from flyweight.compressor.training.surroundings import (
    in_single_precision,
    placed,
    seeded,
    threads,
    training_device,
)

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

_SCORED_ROWS = 128


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did; losses are on the held-out rows, or of the last epoch's steps if there are none.

    Attributes:
        first_loss: before the first step; 0 without held-out rows.
        best_loss: of the weights that were kept.
        best_epoch: whose weights were kept; 0 are those it came with.
        held_out_rows: that were never trained on.
        epochs: that were finished.
        out_of_time: whether the time limit left fewer epochs than were asked for.
    """

    first_loss: float
    best_loss: float
    best_epoch: int
    held_out_rows: int
    epochs: int = 0
    out_of_time: bool = False


def train(
    module: nn.Module,
    rows: Rows,
    loss: Loss | WholeLoss,
    settings: TrainingSettings,
    context: "Context",
    hooks: TrainingHooks | None = None,
) -> Trained:
    """Train `module` in place and leave it in evaluation mode, with the weights of its best epoch.

    Where rows are held out, the weights it came with count as epoch 0: it never ends worse than it began.
    The same seed, threads and rows give the same weights, unless time runs out: then fewer epochs are
    planned, as many as fit, and where the deadline comes all the same the best epoch so far is kept.
    Frozen parameters stay as they are, unless all are: then the module was merely prepared for inference.

    Raises:
        PassError: there are fewer than two rows, or the loss became infinite or not-a-number.
        OutOfTimeError: the deadline came before the first epoch was done.
    """
    if len(rows) < 2:
        raise PassError("Training needs at least two samples; give more data.")
    device = training_device()
    with threads(context.threads), seeded(context.seed), placed(module, device):
        task = _Task(rows.map(in_single_precision), loss, hooks or TrainingHooks())
        return _Trainer(module, task, settings, context, device).run()


@dataclass(frozen=True, slots=True)
class _Task:
    """What is to be learnt."""

    rows: Rows
    loss: Loss | WholeLoss
    hooks: TrainingHooks


class _Trainer:
    """One training run."""

    def __init__(
        self,
        module: nn.Module,
        task: _Task,
        settings: TrainingSettings,
        context: "Context",
        device: torch.device,
    ) -> None:
        self.module, self.loss, self.hooks = module, task.loss, task.hooks
        self.settings, self.context, self.device = settings, context, device
        self.order = torch.Generator().manual_seed(context.seed)
        self.training, self.held_out = _split(task.rows, settings.held_out, self.order)
        self.batch = min(settings.batch_rows, len(self.training))
        self.batches = len(self.training) // self.batch
        self.epochs = settings.epochs
        for parameter in self.hooks.parameters:
            parameter.data = parameter.data.to(device)
        self.optimizer = _optimizer(module, settings, self.hooks.parameters)

    def run(self) -> Trained:
        """Train all epochs, then go back to the best one, or stay at the last one if none can be compared."""
        self.after_step()
        first = best = self.score()
        best_epoch, weights, done, began = 0, copy.deepcopy(self.module.state_dict()), 0, time.monotonic()
        while done < self.epochs:
            self.context.progress("training", done, self.epochs)
            try:
                last = self.epoch(done)
                score = last if self.held_out is None else self.score()
            except OutOfTimeError:
                if not done:
                    raise
                break
            done += 1
            self.require_finite(score, done)
            if self.held_out is None or score < best:
                best, best_epoch = score, done
                weights = copy.deepcopy(self.module.state_dict())
            self.epochs = epochs_in_time(
                done, self.epochs, time.monotonic() - began, self.context.remaining_seconds()
            )
        self.module.load_state_dict(weights)
        if self.held_out is None:
            self.score()
        self.context.progress("training", self.epochs, self.epochs)
        held_out = 0 if self.held_out is None else len(self.held_out)
        return Trained(first, best, best_epoch, held_out, done, done < self.settings.epochs)

    def epoch(self, done: int) -> float:
        """Train on every row once, but for an incomplete last batch; return the mean loss."""
        self.module.train()
        hold_frozen_statistics(self.module)
        order = torch.randperm(len(self.training), generator=self.order)
        total = 0.0
        for index in range(self.batches):
            self.context.check_time()
            rate = learning_rate_at(done * self.batches + index, self.epochs * self.batches, self.settings)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            total += self.step(self.training.take(order[index * self.batch : (index + 1) * self.batch]))
        return total / self.batches

    def step(self, rows: Rows) -> float:
        """Take one step down the loss of these rows and return it."""
        if self.hooks.before_step is not None:
            rows = self.hooks.before_step(rows, self.order)
        rows = rows.to(self.device)
        loss = loss_of(self.loss, outputs_of(self.module(*rows.inputs)), rows)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch annotates it incompletely
        self.optimizer.step()
        self.after_step()
        return float(loss.detach())

    def after_step(self) -> None:
        """Let the caller act on the module."""
        if self.hooks.after_step is not None:
            self.hooks.after_step(self.module)

    def score(self) -> float:
        """Estimate statistics of normalisation, and return the loss on the held-out rows, 0 without any."""
        first = torch.arange(min(len(self.training), STATISTICS_ROWS))
        restore_statistics(self.module, self.training.take(first), self.device)
        if self.held_out is None:
            return 0.0
        self.module.eval()
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(self.held_out), _SCORED_ROWS):
                self.context.check_time()
                chosen = torch.arange(start, min(start + _SCORED_ROWS, len(self.held_out)))
                rows = self.held_out.take(chosen).to(self.device)
                loss = loss_of(self.loss, outputs_of(self.module(*rows.inputs)), rows)
                total += float(loss) * len(rows)
        return total / len(self.held_out)

    def require_finite(self, score: float, epoch: int) -> None:
        """Raise where the loss is no number any more."""
        if not math.isfinite(score):
            raise PassError(
                f"Training diverged in epoch {epoch}; give it a lower learning rate "
                f"than {self.settings.learning_rate}."
            )


def _split(rows: Rows, held_out: float, order: torch.Generator) -> tuple[Rows, Rows | None]:
    count = round(len(rows) * held_out)
    if count < 32:
        return rows, None
    shuffled = torch.randperm(len(rows), generator=order)
    return rows.take(shuffled[count:].sort().values), rows.take(shuffled[:count].sort().values)


def _optimizer(
    module: nn.Module, settings: TrainingSettings, others: tuple[nn.Parameter, ...]
) -> torch.optim.Optimizer:
    trainable = [*_trainable(module), *others]
    groups: list[dict[str, object]] = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.optimizer is Optimizer.SGD:
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _trainable(module: nn.Module) -> list[Tensor]:
    """Return what may change; parameters that are all frozen are thawed, as the module's owner froze nothing.

    Raises:
        PassError: the module has no parameter of floating point.
    """
    floats = [parameter for parameter in module.parameters() if parameter.is_floating_point()]
    if not floats:
        raise PassError("The module has no weights in floating point that could be trained.")
    if not any(parameter.requires_grad for parameter in floats):
        for parameter in floats:
            parameter.requires_grad_(True)  # noqa: FBT003 - torch's own verb
    return [parameter for parameter in floats if parameter.requires_grad]
