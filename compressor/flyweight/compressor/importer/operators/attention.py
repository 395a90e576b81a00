"""Attention as one operator, as exporters write it since opset 23."""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from torch import Tensor

from flyweight.compressor.importer.operation import Operation, Outcome

_ATTRIBUTES: Final = {
    "is_causal",
    "kv_num_heads",
    "q_num_heads",
    "qk_matmul_output_mode",
    "scale",
    "softcap",
    "softmax_precision",
}


def _attention(operation: Operation) -> Outcome:
    """Build softmax(Q K' scale + mask) V; Vaswani et al. 2017, equation 1."""
    unknown = sorted(operation.attributes.keys() - _ATTRIBUTES)
    if unknown:
        raise operation.refusal(f"has settings the importer does not know ({', '.join(unknown)})")
    if operation.has(4) or operation.has(6) or operation.integer("qk_matmul_output_mode", 0):
        raise operation.refusal("keeps keys and values of earlier calls")
    if operation.real("softcap", 0.0):
        raise operation.refusal("caps its scores softly")
    heads = operation.integer("q_num_heads", 0), operation.integer("kv_num_heads", 0)
    query, key, value = operation.tensor(0), operation.tensor(1), operation.tensor(2)
    flat = query.rank == 3
    if flat:
        query = operation.call(split_heads, query, heads[0])
        key, value = (operation.call(split_heads, tensor, heads[1]) for tensor in (key, value))
    scale: float | None = operation.real("scale", 0.0) or None
    causal = bool(operation.integer("is_causal", 0))
    answer = operation.call(attend, (query, key, value), operation.optional(3), scale, causal=causal)
    return operation.call(join_heads, answer) if flat else answer


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Return [batch, length, heads * width] as [batch, heads, length, width]."""
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join_heads(x: Tensor) -> Tensor:
    """Return [batch, heads, length, width] as [batch, length, heads * width]."""
    return x.transpose(1, 2).flatten(2)


def attend(
    parts: tuple[Tensor, Tensor, Tensor], mask: Tensor | None, scale: float | None, *, causal: bool
) -> Tensor:
    """Return attention over [batch, heads, length, width]; several queries may share a key."""
    query, key, value = parts
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    factor = scale if scale is not None else query.shape[-1] ** -0.5
    scores = query @ key.transpose(-1, -2) * factor
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    if mask is not None and mask.dtype is torch.bool:
        scores = scores.masked_fill(~mask, float("-inf"))
    elif mask is not None:
        scores = scores + mask
    return torch.softmax(scores, -1) @ value


BUILDERS: Final[Mapping[str, Callable[[Operation], Outcome]]] = {"Attention": _attention}
