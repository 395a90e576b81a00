"""Gradients that say what a weight is worth, with labels or without."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from flyweight.compressor.passes.distill.losses import TrainingLoss, as_logits, classifies
from flyweight.compressor.training import output_of, rows_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model

TAYLOR_ROWS: Final = 256
"""Samples whose gradients are averaged; the ranking hardly moves with more."""

BATCH_ROWS: Final = 16
"""Rows whose gradients are taken together: squares of single rows would cost a pass backwards each."""


def accumulate_gradients(module: nn.Module, model: "Model", context: "Context") -> None:
    """Leave in every parameter's .grad the root of its mean squared gradient over batches.

    |w| sqrt(mean_b (dL_b/dw)^2) is the root of Molchanov et al. 2019, equation 8: the squared change of the
    loss when w becomes zero, to first order, as the mean over mini-batches. (With a single batch it is the
    |w dL/dw| of Molchanov et al. 2017, equation 8.) Gradients of a mean over all samples would do for nothing
    trained: there they vanish.

    With labels in the training data, L is their loss. Without, any loss against the original's own answers
    has no gradient at the original. So labels are drawn: from the distribution the module itself answers
    with, the squared gradient then being its Fisher information (Theis et al. 2018, "Faster gaze prediction
    with dense networks and Fisher pruning", section 2), or, for answers that are values, as noise of variance
    one, which makes it the diagonal of J^T J. Parameters the loss does not reach get zeros.
    """
    squares = [torch.zeros_like(parameter) for parameter in module.parameters()]
    batches = 0
    for _ in batch_gradients(module, model, context):
        batches += 1
        for square, parameter in zip(squares, module.parameters(), strict=True):
            if parameter.grad is not None:
                square.add_(parameter.grad**2)
    for square, parameter in zip(squares, module.parameters(), strict=True):
        parameter.grad = (square / batches).sqrt() if parameter.is_floating_point() else None


def batch_gradients(module: nn.Module, model: "Model", context: "Context") -> Iterator[None]:
    """Leave the gradients of one batch after the other in the parameters, and yield for each.

    See `accumulate_gradients` for the loss. Frozen parameters get gradients as well; none are left at the
    end.
    """
    data = context.training if context.training is not None else context.calibration
    rows = rows_of(data.first(TAYLOR_ROWS), tuple(model.example))
    random = torch.Generator().manual_seed(context.seed)
    loss = TrainingLoss()
    frozen = [p for p in module.parameters() if not p.requires_grad and p.is_floating_point()]
    for parameter in frozen:
        parameter.requires_grad_(True)  # noqa: FBT003 - torch's own verb
    try:
        for start in range(0, len(rows), BATCH_ROWS):
            context.check_time()
            batch = rows.take(torch.arange(start, min(start + BATCH_ROWS, len(rows))))
            module.zero_grad(set_to_none=True)
            outputs = output_of(module(*batch.inputs))
            value = loss(outputs, batch) if rows.labels is not None else drawn_label_loss(outputs, random)
            value.backward()  # type: ignore[no-untyped-call]  # torch annotates it incompletely
            yield
    finally:
        module.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(False)  # noqa: FBT003 - as above


def drawn_label_loss(outputs: Tensor, random: torch.Generator) -> Tensor:
    """Return a loss whose squared gradient is, on average, the information the outputs carry; a scalar.

    Args:
        outputs: of shape (rows, classes), or values of any shape.
        random: what the labels are drawn with.
    """
    if classifies(outputs, None):
        logits = as_logits(outputs)
        drawn = torch.multinomial(logits.detach().softmax(dim=1), 1, generator=random).squeeze(1)
        return F.cross_entropy(logits, drawn)
    noise = torch.randn(outputs.shape, generator=random)
    return (outputs * noise).sum() / len(outputs)
