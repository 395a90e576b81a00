"""Statistics of batch normalisation, estimated anew."""

from typing import Final

import torch
from torch import nn

from flyweight.compressor.training.answers import answers
from flyweight.compressor.training.rows import Rows

STATISTICS_ROWS: Final = 512
"""Rows from which the statistics of normalisation are estimated: enough for a mean and a variance."""


def restore_statistics(module: nn.Module, rows: Rows, device: torch.device, batch_rows: int = 64) -> None:
    """Estimate the means and variances of batch normalisation anew, as plain averages over `rows`, in place.

    The statistics of a cut module are those of another network, and a running average follows new weights
    slowly (with the momentum 0.01 of some networks, not at all within a short fine-tuning): see Wu and
    Johnson 2021, "Rethinking Batch in BatchNorm", section 3. Only normalisation is in training mode then.
    Frozen layers keep theirs.
    """
    tracked = [
        layer for layer in normalisations(module) if layer.track_running_stats and not is_frozen(layer)
    ]
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


def hold_frozen_statistics(module: nn.Module) -> None:
    """Keep frozen normalisation in evaluation mode while the rest of the module trains, in place."""
    for layer in normalisations(module):
        if is_frozen(layer):
            layer.eval()


def normalisations(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return every layer of batch normalisation."""
    return [layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]


def is_frozen(layer: nn.Module) -> bool:
    """Return whether a layer has parameters and none of them may change."""
    parameters = list(layer.parameters(recurse=False))
    return bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
