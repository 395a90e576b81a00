"""The head of a network: the layer that turns features into one score for each class."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.torch_model import outputs_of
from flyweight.compressor.training import seeded, tensor_of
from flyweight.compressor.watching import watched

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.data import DataSet
    from flyweight.compressor.model import Model


@dataclass(frozen=True, slots=True)
class ReplaceHead(Pass):
    """Puts a fresh head in the place of the last linear layer or 1x1 convolution, for other classes.

    The module then answers in another shape than the original, which cannot teach it: it needs labels, and
    its variants are compared with the transferred module, not with the original (see `transfer`).

    Attributes:
        classes: how many; None takes them from the labels of the training data.
        layer: the head's name, where it is not the last such layer that runs.
    """

    name: ClassVar[str] = "replace-head"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    classes: int | None = None
    layer: str = ""

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if self.classes is not None and self.classes < 2:
            raise RecipeError(f"A head has at least two classes, and {self.classes} are fewer.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a copy of the module with a head that has not learnt anything yet.

        Raises:
            PassError: there are no classes to learn, no head is found, or the module works with no other.
        """
        classes = self.classes or count_classes(context.training or context.calibration)
        module = copy.deepcopy(model.torch_module()).eval()
        example = [tensor_of(array) for array in model.example.values()]
        name = self.layer or find_head(module, example)
        old = dict(module.named_modules()).get(name)
        if old is None or not _is_head(old):
            raise PassError(f"The model has no linear layer or 1x1 convolution called {name!r}.")
        with seeded(context.seed):
            new = _fresh(old, classes)
        module.set_submodule(name, new)
        _check(module, example, classes)
        note = f"The head {name} has {classes} classes instead of {len(old.get_parameter('weight'))}."
        return PassResult(replace(model, module=module), changed=True, notes=(note,))


def count_classes(data: "DataSet") -> int:
    """Return the number of classes that integer labels need, counting from 0.

    Raises:
        PassError: there are no such labels, or they name one class only.
    """
    labels = data.labels
    if labels is None or labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise PassError("A new head needs training data with one integer label a sample; give --train.")
    if len(np.unique(labels)) < 2 or int(labels.min()) < 0:
        raise PassError("The training labels name one class only, or negative ones; classes count from 0.")
    return int(labels.max()) + 1


def find_head(module: nn.Module, example: Sequence[Tensor]) -> str:
    """Return the name of the last linear layer or 1x1 convolution that runs.

    Raises:
        PassError: there is none.
    """
    ran = list[str]()
    heads = {name: layer for name, layer in module.named_modules() if _is_head(layer)}
    with watched(heads, lambda name, _inputs, _output: ran.append(name)), torch.no_grad():
        module.eval()(*example)
    if not ran:
        raise PassError("The model has no linear layer or 1x1 convolution that could be its head.")
    return ran[-1]


def _is_head(layer: nn.Module | None) -> bool:
    if isinstance(layer, nn.Conv2d):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    return isinstance(layer, nn.Linear)


def _fresh(old: nn.Module, classes: int) -> nn.Module:
    like = old.get_parameter("weight")
    if isinstance(old, nn.Conv2d):
        new: nn.Module = nn.Conv2d(old.in_channels, classes, 1, stride=(old.stride[0], old.stride[1]))
    else:
        new = nn.Linear(like.shape[1], classes)
    return new.to(like.dtype).eval()


def _check(module: nn.Module, example: Sequence[Tensor], classes: int) -> None:
    with torch.no_grad():
        outputs = run_foreign(
            lambda: outputs_of(module(*example)),
            lambda reason: PassError(
                f"The model does not work with another number of classes ({reason}); what comes after its "
                "head probably has that number written into it."
            ),
        )
    if not any(output.ndim == 2 and output.shape[1] == classes for output in outputs):
        shapes = ", ".join(str(list(output.shape[1:])) for output in outputs)
        raise PassError(
            f"With {classes} classes the model answers {shapes} a sample and not [{classes}]; name the layer "
            "that is its head."
        )
