"""A small trainer for passes that learn: seeded, on as many threads as given, keeping the best epoch."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.torch_model import outputs_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.data import DataSet
    from flyweight.compressor.model import Array


class Optimizer(Enum):
    """How a step is taken."""

    ADAMW = "adamw"
    SGD = "sgd"


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How long and how fast to train.

    Attributes:
        epochs: passes over the training rows.
        batch_rows: rows per step; 64 keeps two cores busy on small images and still gives enough steps on a
            thousand rows.
        learning_rate: at its peak. 2e-3 suits AdamW on small networks from scratch; fine-tuning wants less.
        weight_decay: of matrices and filters only; biases and normalisation are not decayed.
        optimizer: AdamW needs no tuning per architecture; SGD with Nesterov momentum 0.9 for those who tune.
        warmup: fraction of the steps in which the rate rises; it falls along a cosine to zero after that.
            Some is needed: batch statistics of a cut or new network are far off in the first steps.
        label_smoothing: of integer labels; 0 trains on them as they are.
        held_out: fraction of the rows that is never trained on and chooses the best epoch. None are held out
            when that would be fewer than 32, whose score would be mostly chance: the last epoch is kept.
    """

    epochs: int = 12
    batch_rows: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    optimizer: Optimizer = Optimizer.ADAMW
    warmup: float = 0.1
    label_smoothing: float = 0.0
    held_out: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: a value is out of its range.
        """
        checks = {
            "epochs must be at least 1": self.epochs >= 1,
            "batch_rows must be at least 2": self.batch_rows >= 2,
            "learning_rate must be above 0": self.learning_rate > 0,
            "weight_decay must not be negative": self.weight_decay >= 0,
            "warmup must be from 0 to below 1": 0 <= self.warmup < 1,
            "label_smoothing must be from 0 to below 1": 0 <= self.label_smoothing < 1,
            "held_out must be from 0 to 0.5": 0 <= self.held_out <= 0.5,
        }
        for rule, kept in checks.items():
            if not kept:
                raise RecipeError(f"In the training settings, {rule}.")


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows as tensors; all have the same length on their first axis.

    Attributes:
        inputs: in the order of the module's forward().
        labels: integer classes, shape (rows,), or floats of the output's shape; None when unknown.
        teacher: what the teacher answers for these rows, of the output's shape; None without a teacher.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None
    teacher: Tensor | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, indices: Tensor) -> "Rows":
        """Return the rows at `indices`, shape (count,), in that order."""
        return Rows(
            tuple(tensor[indices] for tensor in self.inputs),
            None if self.labels is None else self.labels[indices],
            None if self.teacher is None else self.teacher[indices],
        )

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on `device`."""
        return Rows(
            tuple(tensor.to(device) for tensor in self.inputs),
            None if self.labels is None else self.labels.to(device),
            None if self.teacher is None else self.teacher.to(device),
        )


STATISTICS_ROWS: Final = 512
"""Rows from which the statistics of normalisation are estimated: enough for a mean and a variance."""

Loss = Callable[[Tensor, Rows], Tensor]
"""The module's output and the rows it answered for -> a scalar, averaged over the rows."""


@dataclass(frozen=True, slots=True)
class Trained:
    """What training did; losses are on the held-out rows, or of the last epoch's steps if there are none."""

    first_loss: float
    best_loss: float
    best_epoch: int
    held_out_rows: int


def rows_of(data: "DataSet", names: Sequence[str]) -> Rows:
    """Return a data set as tensors, its inputs in the order of `names`.

    Raises:
        PassError: the data lack one of the inputs.
    """
    missing = [name for name in names if name not in data.inputs]
    if missing:
        raise PassError(
            f"The training data lack the model's input {missing[0]!r}; add an array of that name."
        )
    inputs = tuple(tensor_of(data.inputs[name]) for name in names)
    if data.labels is None:
        return Rows(inputs)
    labels = tensor_of(data.labels)
    return Rows(inputs, labels.float() if labels.is_floating_point() else labels.long())


def tensor_of(array: "Array") -> Tensor:
    """Return an array as a tensor of the same type; images (rank 4) with channels last in memory.

    oneDNN's convolutions want channels last: training the demo's network took half the time with it.
    """
    contiguous = np.ascontiguousarray(array)
    # A tensor over read-only memory would let torch write where numpy promised nobody does.
    tensor = torch.from_numpy(contiguous if contiguous.flags.writeable else contiguous.copy())
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def train(
    module: nn.Module, rows: Rows, loss: Loss, settings: TrainingSettings, context: "Context"
) -> Trained:
    """Train `module` in place and leave it in evaluation mode, with the weights of its best epoch.

    Where rows are held out, the weights it came with count as epoch 0: it never ends worse than it began.
    The same seed, threads and rows give the same weights.

    Raises:
        PassError: there are fewer than two rows, or the loss became infinite or not-a-number.
    """
    if len(rows) < 2:
        raise PassError("Training needs at least two samples; give more data.")
    with threads(context.threads), seeded(context.seed):
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        _place(module, device, torch.channels_last)
        try:
            return _Trainer(module, rows, loss, settings, context, device).run()
        finally:
            _place(module, torch.device("cpu"), torch.contiguous_format)
            module.eval()


class _Trainer:
    """One training run."""

    def __init__(
        self,
        module: nn.Module,
        rows: Rows,
        loss: Loss,
        settings: TrainingSettings,
        context: "Context",
        device: torch.device,
    ) -> None:
        self.module, self.loss, self.settings, self.context, self.device = (
            module,
            loss,
            settings,
            context,
            device,
        )
        self.order = torch.Generator().manual_seed(context.seed)
        self.training, self.held_out = _split(rows, settings.held_out, self.order)
        self.batch = min(settings.batch_rows, len(self.training))
        self.steps = settings.epochs * (len(self.training) // self.batch)
        self.optimizer = _optimizer(module, settings)

    def run(self) -> Trained:
        """Train all epochs, then go back to the best one, or stay at the last one if none can be compared."""
        first = best = self.score()
        best_epoch, weights, step = 0, copy.deepcopy(self.module.state_dict()), 0
        for epoch in range(1, self.settings.epochs + 1):
            self.context.progress("training", epoch - 1, self.settings.epochs)
            last, step = self.epoch(step)
            score = last if self.held_out is None else self.score()
            if not math.isfinite(score):
                raise PassError(
                    f"Training diverged in epoch {epoch}; give it a lower learning rate "
                    f"than {self.settings.learning_rate}."
                )
            if self.held_out is None:
                best, best_epoch = score, epoch
            elif score < best:
                best, best_epoch, weights = score, epoch, copy.deepcopy(self.module.state_dict())
        if self.held_out is None:
            self.score()
        else:
            self.module.load_state_dict(weights)
        self.context.progress("training", self.settings.epochs, self.settings.epochs)
        return Trained(first, best, best_epoch, 0 if self.held_out is None else len(self.held_out))

    def epoch(self, step: int) -> tuple[float, int]:
        """Train on every row once, but for an incomplete last batch; return the mean loss and next step."""
        self.module.train()
        order = torch.randperm(len(self.training), generator=self.order)
        total, batches = 0.0, len(self.training) // self.batch
        for index in range(batches):
            rate = learning_rate_at(step, self.steps, self.settings)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            rows = self.training.take(order[index * self.batch : (index + 1) * self.batch]).to(self.device)
            loss = self.loss(output_of(self.module(*rows.inputs)), rows)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch annotates it incompletely
            self.optimizer.step()
            total, step = total + float(loss.detach()), step + 1
        return total / batches, step

    def score(self) -> float:
        """Estimate statistics of normalisation, and return the loss on the held-out rows, 0 without any."""
        first = torch.arange(min(len(self.training), STATISTICS_ROWS))
        restore_statistics(self.module, self.training.take(first), self.device)
        if self.held_out is None:
            return 0.0
        self.module.eval()
        outputs = answers(self.module, self.held_out.inputs, self.device)
        return float(self.loss(outputs, self.held_out))


def restore_statistics(module: nn.Module, rows: Rows, device: torch.device, batch_rows: int = 64) -> None:
    """Estimate the means and variances of batch normalisation anew, as plain averages over `rows`, in place.

    The statistics of a cut module are those of another network, and a running average follows new weights
    slowly (with the momentum 0.01 of some networks, not at all within a short fine-tuning): see Wu and
    Johnson 2021, "Rethinking Batch in BatchNorm", section 3. Only normalisation is in training mode then.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    tracked = [layer for layer in layers if layer.track_running_stats]
    if not tracked:
        return
    momenta = [layer.momentum for layer in tracked]
    module.eval()
    for layer in tracked:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average
        layer.train()
    # Batches of equal length: in a plain average of batches, a short last one would weigh too much.
    length = min(batch_rows, len(rows))
    answers(module, [tensor[: len(rows) // length * length] for tensor in rows.inputs], device, length)
    for layer, momentum in zip(tracked, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def learning_rate_at(step: int, steps: int, settings: TrainingSettings) -> float:
    """Return the rate of one step: a linear rise to the peak, then half a cosine down to zero.

    Goyal et al. 2017, section 2.2 (warm-up); Loshchilov and Hutter 2017, equation 5 without restarts.
    """
    rising = round(steps * settings.warmup)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    fraction = (step - rising) / max(steps - rising, 1)
    return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * fraction))


def answers(
    module: nn.Module, inputs: Sequence[Tensor], device: torch.device | None = None, batch_rows: int = 128
) -> Tensor:
    """Return the module's output for all rows, on the CPU, without gradients; its mode stays as it is."""
    with torch.no_grad():
        parts = [
            output_of(module(*(tensor[start : start + batch_rows].to(device) for tensor in inputs))).cpu()
            for start in range(0, len(inputs[0]), batch_rows)
        ]
        return torch.cat(parts)


def output_of(returned: object) -> Tensor:
    """Return the tensor that a training pass learns from: the only one, or the first of several.

    Raises:
        ModelError: the module returned something else than tensors.
    """
    return outputs_of(returned)[0]


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use `count` threads, and as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's own randomness (dropout, initial weights), and restore the caller's afterwards."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def _place(module: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Move a module to `device` and its filters to `layout`, in place."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def _split(rows: Rows, held_out: float, order: torch.Generator) -> tuple[Rows, Rows | None]:
    count = round(len(rows) * held_out)
    if count < 32:
        return rows, None
    shuffled = torch.randperm(len(rows), generator=order)
    return rows.take(shuffled[count:].sort().values), rows.take(shuffled[:count].sort().values)


def _optimizer(module: nn.Module, settings: TrainingSettings) -> torch.optim.Optimizer:
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    if settings.optimizer is Optimizer.SGD:
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=settings.learning_rate)
