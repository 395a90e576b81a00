"""What a module answers, without gradients and a bounded number of rows at a time."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from flyweight.compressor.torch_model import outputs_of


def answers(
    module: nn.Module, inputs: Sequence[Tensor], device: torch.device | None = None, batch_rows: int = 128
) -> Tensor:
    """Return the module's first output for all rows, on the CPU, without gradients; its mode stays."""
    return all_answers(module, inputs, device, batch_rows)[0]


def all_answers(
    module: nn.Module,
    inputs: Sequence[Tensor],
    device: torch.device | None = None,
    batch_rows: int = 128,
    between: Callable[[], None] | None = None,
) -> tuple[Tensor, ...]:
    """Return every output of the module for all rows, on the CPU, without gradients.

    `between` is called before every batch: someone who watches the time may raise there.

    Raises:
        ModelError: the module returned something else than tensors.
    """
    parts = []
    with torch.no_grad():
        for start in range(0, len(inputs[0]), batch_rows):
            if between is not None:
                between()
            returned = module(*(tensor[start : start + batch_rows].to(device) for tensor in inputs))
            parts.append([output.cpu() for output in outputs_of(returned)])
    return tuple(torch.cat(pieces) if pieces[0].ndim else pieces[0] for pieces in zip(*parts, strict=True))


def output_of(returned: object) -> Tensor:
    """Return the tensor that labels are compared with: the only one, or the first of several.

    Raises:
        ModelError: the module returned something else than tensors.
    """
    return outputs_of(returned)[0]
