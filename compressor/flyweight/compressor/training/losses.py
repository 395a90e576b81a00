"""What the trainer asks of a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor

from flyweight.compressor.training.rows import Rows

Loss = Callable[[Tensor, Rows], Tensor]
"""The module's first output and the rows it answered for -> a scalar, averaged over the rows."""


class WholeLoss(ABC):
    """A loss of all outputs of a module, and of whatever else it watches while the module runs."""

    @abstractmethod
    def of_all(self, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
        """Return the loss, a scalar averaged over the rows.

        Args:
            outputs: everything the module returned for exactly these rows, a moment ago.
            rows: what it answered for, on the same device.
        """


def loss_of(loss: Loss | WholeLoss, outputs: tuple[Tensor, ...], rows: Rows) -> Tensor:
    """Return a loss of either kind."""
    return loss.of_all(outputs, rows) if isinstance(loss, WholeLoss) else loss(outputs[0], rows)
