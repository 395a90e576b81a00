"""The identity of a torch module: what it is made of, and what it has learned."""

import hashlib
import inspect

import torch
from torch import nn


def digest_of_module(module: nn.Module) -> str:
    """Return one digest of a module's structure, code and weights.

    Two modules with the same digest answer alike, unless their code calls functions that changed.
    """
    digest = hashlib.sha256(repr(module).encode())
    for kind in sorted({type(layer) for layer in module.modules()}, key=lambda kind: kind.__qualname__):
        if not kind.__module__.startswith("torch."):
            digest.update(_source(kind).encode())
    code = getattr(module, "code", None)  # a traced graph is known by its code, not by its class
    if isinstance(code, str):
        digest.update(code.encode())
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        plain = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(plain.view(torch.uint8).numpy().data if plain.numel() else b"")
    return digest.hexdigest()


def _source(kind: type) -> str:
    try:
        return inspect.getsource(kind)
    except (OSError, TypeError):
        return kind.__qualname__
