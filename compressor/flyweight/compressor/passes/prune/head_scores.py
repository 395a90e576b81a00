"""What attention heads are worth, and which of them stay."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flyweight.compressor.passes.prune.attentions import Attention, Deaf, columns
from flyweight.compressor.passes.prune.masks import keep_largest_together
from flyweight.compressor.passes.prune.retraining import Harm
from flyweight.compressor.passes.prune.saliency import batch_gradients
from flyweight.compressor.passes.prune.scope import Scope

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

Scored = dict[str, NDArray[np.float64]]
"""A score for each head, shape (heads,), by the name of its attention."""


class HeadImportance(Enum):
    """What makes a head worth keeping."""

    MAGNITUDE = "magnitude"
    """The norm of the output projection's weights that read it."""

    TAYLOR = "taylor"
    """The loss's change without it, to first order (Michel et al. 2019, section 4.1)."""

    MEASURED = "measured"
    """The harm to the answers without it, one run for each head."""


def score_heads(
    importance: HeadImportance, model: "Model", attentions: Sequence[Attention], context: "Context"
) -> Scored:
    """Return what each head is worth; the model's module is left as it was."""
    if importance is HeadImportance.TAYLOR:
        return _first_order(model, attentions, context)
    if importance is HeadImportance.MAGNITUDE:
        return _magnitudes(model, attentions)
    return _measured(model, attentions, context)


def heads_to_keep(
    scores: Mapping[str, NDArray[np.float64]], ratio: float, scope: Scope
) -> dict[str, list[int]]:
    """Return which heads of each attention stay: never none, the best of each in any case."""
    names = list(scores)
    groups = [names] if scope is Scope.GLOBAL else [[name] for name in names]
    kept: dict[str, list[int]] = {}
    for group in groups:
        # The best head of each cannot go, whatever it is worth.
        protected = [
            np.where(np.arange(scores[name].size) == scores[name].argmax(), np.inf, scores[name])
            for name in group
        ]
        masks = keep_largest_together(protected, ratio)
        for name, mask, layer in zip(group, masks, protected, strict=True):
            kept[name] = np.flatnonzero(mask | np.isinf(layer)).tolist()
    return kept


def _magnitudes(model: "Model", attentions: Sequence[Attention]) -> Scored:
    module = model.torch_module()
    return {
        attention.name: _by_head(columns(module, attention).square(), attention).sqrt().double().numpy()
        for attention in attentions
    }


def _measured(model: "Model", attentions: Sequence[Attention], context: "Context") -> Scored:
    module, harm, scores = model.torch_module(), Harm(model, context), Scored()
    for done, attention in enumerate(attentions):
        context.progress("measuring heads", done, len(attentions))
        values = []
        for head in range(attention.heads):
            context.check_time()
            with Deaf(module, attention, [head]):
                values.append(harm(module))
        scores[attention.name] = np.array(values, dtype=np.float64)
    context.progress("measuring heads", len(attentions), len(attentions))
    return scores


def _first_order(model: "Model", attentions: Sequence[Attention], context: "Context") -> Scored:
    """Return |dL / d xi_h|, xi_h a factor on the output of head h, as the mean over batches.

    Michel et al. 2019, "Are Sixteen Heads Really Better than One?", equation 2; the factor's gradient is the
    sum of w dL/dw over the weights that read the head.
    """
    module = model.torch_module()
    scores = {attention.name: np.zeros(attention.heads) for attention in attentions}
    for _ in batch_gradients(module, model, context):
        for attention in attentions:
            weight = module.get_submodule(attention.output).get_parameter("weight")
            if weight.grad is not None:
                change = _by_head(weight.detach() * weight.grad, attention)
                scores[attention.name] += change.abs().double().numpy()
    return scores


def _by_head(values: Tensor, attention: Attention) -> Tensor:
    """Sum a weight's values over all that reads a head, shape (heads,)."""
    return values.reshape(len(values), attention.heads, attention.size).sum(dim=(0, 2))
