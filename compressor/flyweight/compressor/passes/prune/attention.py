"""Attention with fewer heads than its width divides into, which nn.MultiheadAttention cannot be."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from flyweight.compressor.errors import PassError


class SlimAttention(nn.Module):
    """Answers as an nn.MultiheadAttention whose other heads give nothing; called in the same way.

    softmax(Q_h K_h^T / sqrt(d)) V_h for each head h that is left, then the output projection of their
    concatenation (Vaswani et al. 2017, section 3.2.2). Its inner width is heads times d, whatever the model's
    is.
    """

    # What nn.TransformerEncoderLayer asks before it takes its fused path, which knows full heads only.
    in_proj_bias = None
    _qkv_same_embed_dim = False

    def __init__(self, whole: nn.MultiheadAttention, kept: list[int]) -> None:
        """Take over the weights of the heads at `kept`.

        Raises:
            PassError: the attention has learnt keys and values of its own, or adds zeros to them.
        """
        super().__init__()
        if whole.bias_k is not None or whole.bias_v is not None or whole.add_zero_attn:
            raise PassError("Attention with added keys and values cannot lose heads.")
        self.embed_dim, self.num_heads, self.head_dim = whole.embed_dim, len(kept), whole.head_dim
        self.batch_first, self.dropout, self.whole_heads = whole.batch_first, whole.dropout, whole.num_heads
        self.kept = tuple(kept)
        rows = rows_of_heads(kept, whole.head_dim)
        self.query, self.key, self.value = (
            _linear(weight.detach()[rows], None if bias is None else bias.detach()[rows])
            for weight, bias in zip(_weights(whole), _biases(whole), strict=True)
        )
        bias = whole.out_proj.bias
        self.out_proj = _linear(
            whole.out_proj.weight.detach()[:, rows], None if bias is None else bias.detach()
        )

    def forward(  # noqa: PLR0913, PLR0917 - the signature of nn.MultiheadAttention
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,  # noqa: FBT001, FBT002 - as above
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,  # noqa: FBT001, FBT002 - as above
        is_causal: bool = False,  # noqa: ARG002, FBT001, FBT002 - as above; only a hint beside the mask
    ) -> tuple[Tensor, Tensor | None]:
        """Return the answer, shaped as `query`, and the weights (rows, [heads,] length, keys) if asked."""
        inputs = (query, key, value)
        if not self.batch_first:
            inputs = (query.transpose(0, 1), key.transpose(0, 1), value.transpose(0, 1))
        layers = (self.query, self.key, self.value)
        q, k, v = (self._split(layer(given)) for layer, given in zip(layers, inputs, strict=True))
        scores = q @ k.transpose(-1, -2) * self.head_dim**-0.5
        if attn_mask is not None:
            scores = scores + self._per_head(_added(attn_mask, scores))
        if key_padding_mask is not None:
            scores = scores + _added(key_padding_mask, scores)[:, None, None, :]
        weights = functional.dropout(scores.softmax(dim=-1), self.dropout, self.training)
        mixed = (weights @ v).transpose(1, 2).flatten(2)
        answer = self.out_proj(mixed)
        answer = answer if self.batch_first else answer.transpose(0, 1)
        if not need_weights:
            return answer, None
        return answer, weights.mean(dim=1) if average_attn_weights else weights

    def _split(self, tokens: Tensor) -> Tensor:
        """(rows, length, heads * d) -> (rows, heads, length, d)."""
        rows, length, _ = tokens.shape
        return tokens.reshape(rows, length, self.num_heads, self.head_dim).transpose(1, 2)

    def _per_head(self, mask: Tensor) -> Tensor:
        """(length, keys) as it is, (rows * all heads, length, keys) -> (rows, heads, length, keys)."""
        if mask.ndim == 2:
            return mask
        return mask.reshape(-1, self.whole_heads, *mask.shape[1:])[:, list(self.kept)]


def rows_of_heads(heads: list[int], size: int) -> list[int]:
    """Return the places of the features of these heads, `size` each."""
    return [head * size + feature for head in heads for feature in range(size)]


def _added(mask: Tensor, scores: Tensor) -> Tensor:
    """Return what is added to the scores: minus infinity where a mask of truth values says so."""
    if mask.dtype is not torch.bool:
        return mask
    return torch.zeros(mask.shape, dtype=scores.dtype).masked_fill(mask, float("-inf"))


def _weights(whole: nn.MultiheadAttention) -> tuple[Tensor, ...]:
    if whole.in_proj_weight is not None:
        return whole.in_proj_weight.chunk(3)
    return whole.q_proj_weight, whole.k_proj_weight, whole.v_proj_weight


def _biases(whole: nn.MultiheadAttention) -> tuple[Tensor | None, ...]:
    return (None, None, None) if whole.in_proj_bias is None else whole.in_proj_bias.chunk(3)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    layer.weight = nn.Parameter(weight.clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone())
    return layer
