"""Weight sharing in a torch module, with centroids that are trained."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.distill.lesson import describe_training, lesson_for
from flyweight.compressor.passes.distill.losses import Distillation, TrainingLoss
from flyweight.compressor.passes.share.grouping import Kind, Sharing
from flyweight.compressor.passes.share.sharing import Shared, Weight, describe, share_weights
from flyweight.compressor.training import TrainingSettings, train

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Array, Model

_DEFAULT: Final = Sharing()
_DISTILLATION: Final = Distillation()
# Centroids are near where they belong. A step of Adam's moves each by about the rate, and weights that are
# worth sharing are some hundredths.
_TRAINING: Final = TrainingSettings(epochs=4, learning_rate=2e-4, weight_decay=0.0)
_CONVOLUTIONS: Final = (nn.modules.conv._ConvNd,)
_NORMALISATIONS: Final = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.LocalResponseNorm,
)


@dataclass(frozen=True, slots=True)
class TrainedShare(Pass):
    """Shares weights by k-means, then trains the shared values (Han, Mao and Dally 2016, sections 3.1, 3.3).

    The gradient of a centroid is the sum of the gradients of the weights that it stands for (equation 3).
    Zeros stay zeros: a pruned model stays pruned. Learns from labels, the original's answers, or both.

    Exporting folds batch normalisation into the filters before it, a factor for each channel, and so parts
    what was shared there; put `share` after `export` then.

    Attributes:
        sharing: who shares a codebook with whom.
        training: of the centroids, and of everything that is not shared.
        distillation: how much the original counts.
    """

    name: ClassVar[str] = "share-train"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    sharing: Sharing = _DEFAULT
    training: TrainingSettings = _TRAINING
    distillation: Distillation = _DISTILLATION

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return a copy of the module with shared, trained weights.

        Raises:
            PassError: there is nothing to share or nothing to learn from, or training diverged.
            OutOfTimeError: the deadline came before the first epoch was done.
        """
        module = copy.deepcopy(model.torch_module())
        parameters = dict(_shareable(module))
        weights = [Weight(name, kind, _values(parameter)) for name, (kind, parameter) in parameters.items()]
        shared = share_weights(weights, self.sharing)
        held = [parameters[one.weight.name][1] for one in shared]
        ties = [_Tie(members) for members in _together(shared, held)]
        lesson = lesson_for(model, context)
        loss = TrainingLoss(self.distillation, self.training.label_smoothing)
        with torch.no_grad():
            for one, parameter in zip(shared, held, strict=True):
                parameter.copy_(torch.from_numpy(one.values))
        with _tied(ties):
            trained = train(module, lesson.rows, loss, self.training, context)
        for tie in ties:
            tie.settle()
        parted = _parted(module)
        notes = [describe(shared), *describe_training(lesson, trained, self.training.epochs), *parted]
        return PassResult(replace(model, module=module), changed=True, notes=tuple(notes))


class _Tie:
    """The weights of one codebook, in one or several parameters, which have one gradient for each entry.

    Every weight of an entry gets the entry's gradient. It began equal to the others and every step of an
    optimiser that works element by element leaves it so, but for the last digit, which `settle` evens out.
    """

    def __init__(self, members: Sequence[tuple[nn.Parameter, Shared]]) -> None:
        self.parameters = [parameter for parameter, _ in members]
        codebook = members[0][1].codebook
        self._entries = len(codebook)
        self._zero = [place for place, value in enumerate(codebook.tolist()) if value == 0.0]
        self._places = [torch.from_numpy(one.places.copy()).reshape(-1) for _, one in members]

    def gather(self) -> None:
        """Replace the gradients of the weights by their sums over each entry; 0 where pinned."""
        gradients = [parameter.grad for parameter in self.parameters]
        if any(gradient is None for gradient in gradients):
            return
        found = [gradient for gradient in gradients if gradient is not None]
        if self._places[0].device != found[0].device:
            self._places = [places.to(found[0].device) for places in self._places]
        total = torch.zeros(self._entries, dtype=found[0].dtype, device=found[0].device)
        for places, gradient in zip(self._places, found, strict=True):
            total.index_add_(0, places, gradient.reshape(-1))
        total[self._zero] = 0.0
        for places, gradient in zip(self._places, found, strict=True):
            gradient.copy_(total[places].view(gradient.shape))

    def settle(self) -> None:
        """Give all weights of an entry the value of one of them."""
        with torch.no_grad():
            book = torch.zeros(self._entries, dtype=self.parameters[0].dtype)
            for places, parameter in zip(self._places, self.parameters, strict=True):
                book[places.cpu()] = parameter.detach().reshape(-1)
            book[self._zero] = 0.0
            for places, parameter in zip(self._places, self.parameters, strict=True):
                parameter.copy_(book[places.cpu()].view(parameter.shape))


@contextmanager
def _tied(ties: Sequence[_Tie]) -> Iterator[None]:
    """Gather the gradients of each tie as soon as the last of its parameters has got its own."""
    hooks = list[RemovableHandle]()
    for tie in ties:
        arrived = set[int]()

        def arrive(parameter: Tensor, tie: _Tie = tie, arrived: set[int] = arrived) -> None:
            arrived.add(id(parameter))
            if len(arrived) == len(tie.parameters):
                arrived.clear()
                tie.gather()

        hooks += [_after_gradient(parameter, arrive) for parameter in tie.parameters]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _after_gradient(parameter: nn.Parameter, call: Callable[[Tensor], None]) -> RemovableHandle:
    handle = parameter.register_post_accumulate_grad_hook(call)  # type: ignore[no-untyped-call]  # torch's own
    assert isinstance(handle, RemovableHandle)
    return handle


def _together(
    shared: Sequence[Shared], parameters: Sequence[nn.Parameter]
) -> Iterator[list[tuple[nn.Parameter, Shared]]]:
    """Yield the tensors of each codebook."""
    books: dict[int, list[tuple[nn.Parameter, Shared]]] = {}
    for one, parameter in zip(shared, parameters, strict=True):
        books.setdefault(id(one.codebook), []).append((parameter, one))
    yield from books.values()


def _shareable(module: nn.Module) -> Iterator[tuple[str, tuple[Kind, nn.Parameter]]]:
    """Yield the weights and biases of layers, each once; not those of normalisation."""
    seen = set[int]()
    for path, layer in module.named_modules():
        if isinstance(layer, _NORMALISATIONS):
            continue
        for name, parameter in layer.named_parameters(path, recurse=False):
            if id(parameter) in seen or not parameter.is_floating_point() or not parameter.requires_grad:
                continue
            seen.add(id(parameter))
            kind = _kind(layer, parameter)
            if kind is not None:
                yield name, (kind, parameter)


def _kind(layer: nn.Module, parameter: Tensor) -> Kind | None:
    if parameter.ndim >= 2:
        return Kind.CONVOLUTION if isinstance(layer, _CONVOLUTIONS) else Kind.PRODUCT
    return Kind.VECTOR if parameter.ndim == 1 else None


def _values(parameter: Tensor) -> "Array":
    # Zeros of both signs become one.
    return parameter.detach().float().cpu().contiguous().numpy() + np.float32(0.0)


def _parted(module: nn.Module) -> list[str]:
    if not any(isinstance(layer, nn.modules.batchnorm._BatchNorm) for layer in module.modules()):
        return []
    return [
        "The module has batch normalisation, which exporting folds into the filters; put share after export."
    ]
