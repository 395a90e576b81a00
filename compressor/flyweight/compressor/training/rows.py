"""Training data as tensors."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.training.answers import all_answers
from flyweight.compressor.training.surroundings import threads

if TYPE_CHECKING:
    from flyweight.compressor.data import DataSet
    from flyweight.compressor.model import Array


@dataclass(frozen=True, slots=True)
class Rows:
    """Training rows as tensors; all have the same length on their first axis.

    Attributes:
        inputs: in the order of the module's forward().
        labels: integer classes, shape (rows,), or floats of an output's shape; None when unknown.
        teacher: what the teacher answers for these rows, every output in order; None without a teacher.
    """

    inputs: tuple[Tensor, ...]
    labels: Tensor | None = None
    teacher: tuple[Tensor, ...] | None = None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, indices: Tensor) -> "Rows":
        """Return the rows at `indices`, shape (count,), in that order."""
        return self.map(lambda tensor: tensor[indices])

    def to(self, device: torch.device) -> "Rows":
        """Return the rows on `device`."""
        return self.map(lambda tensor: tensor.to(device))

    def map(self, change: Callable[[Tensor], Tensor]) -> "Rows":
        """Return the rows with `change` made to every tensor."""
        return Rows(
            tuple(change(tensor) for tensor in self.inputs),
            None if self.labels is None else change(self.labels),
            None if self.teacher is None else tuple(change(tensor) for tensor in self.teacher),
        )


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


def taught(
    rows: Rows, teacher: nn.Module, thread_count: int = 1, between: Callable[[], None] | None = None
) -> Rows:
    """Return the rows with every output of `teacher`, a module in any mode, which stays as it is.

    `between` is called before every batch.
    """
    with threads(thread_count):
        copied = copy.deepcopy(teacher).eval()
        return replace(rows, teacher=all_answers(copied, rows.inputs, torch.device("cpu"), between=between))
