"""Threads, randomness, device, memory layout and number format of a training, restored afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch
from torch import nn

_HALVES: Final = (torch.float16, torch.bfloat16)


def training_device() -> torch.device:
    """Return where trainings run: on a GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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


@contextmanager
def placed(module: nn.Module, device: torch.device) -> Iterator[None]:
    """Have `module` on `device`, its filters channels last and its weights float32, and back afterwards.

    In half precision small gradients are zero and a step of AdamW divides by zero: a module of halves is
    trained in float32 (Micikevicius et al. 2018, section 3.1) and its weights are rounded at the end.
    """
    halves = {
        name: tensor.dtype
        for name, tensor in (*module.named_parameters(), *module.named_buffers())
        if tensor.dtype in _HALVES
    }
    if halves:
        module.float()
    _place(module, device, torch.channels_last)
    try:
        yield
    finally:
        _place(module, torch.device("cpu"), torch.contiguous_format)
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if name in halves:
                tensor.data = tensor.data.to(halves[name])
        module.eval()


def in_single_precision(tensor: torch.Tensor) -> torch.Tensor:
    """Return halves as float32, anything else as it is."""
    return tensor.float() if tensor.dtype in _HALVES else tensor


def _place(module: nn.Module, device: torch.device, layout: torch.memory_format) -> None:
    """Move a module to `device` and its filters to `layout`, in place."""
    module.to(device)
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
