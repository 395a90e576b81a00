"""What the demo works on: a network, data to train it, data to judge it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flyweight.compressor.data import DataSet

if TYPE_CHECKING:
    from torch import nn

IMAGE = "image"
"""The name of the network's input: float32, shape (rows, channels, height, width)."""


@dataclass(frozen=True, slots=True)
class Task:
    """A network with its data.

    Attributes:
        description: what the data are, for the report.
        training: samples that passes learn from.
        evaluation: samples that judge every variant; no pass sees them.
        module: the network, in evaluation mode, trained or not.
        trained: whether its weights are already worth something.
        notes: sentences a reader of the figures must know.
    """

    description: str
    training: DataSet
    evaluation: DataSet
    module: "nn.Module"
    trained: bool = False
    notes: tuple[str, ...] = field(default=())
