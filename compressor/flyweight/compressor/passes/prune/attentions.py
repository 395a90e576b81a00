"""The attentions of a module: found, deafened for a trial, and cut where that means what it should."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import torch
from torch import Tensor, fx, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.passes.prune.attention import SlimAttention, rows_of_heads
from flyweight.compressor.passes.prune.attention_graph import graph_attentions, traced
from flyweight.compressor.torch_model import outputs_of

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

TOLERANCE: Final = 1e-3
"""Largest difference between cut heads and heads that nobody listens to, relative to the largest output."""


class Attention(Protocol):
    """Attention found in a module: nn.MultiheadAttention, or linear layers in a traced graph."""

    @property
    def name(self) -> str:
        """What it is called in notes."""
        ...

    @property
    def output(self) -> str:
        """The linear layer that reads the heads' features side by side."""
        ...

    @property
    def heads(self) -> int:
        """How many it has."""
        ...

    @property
    def size(self) -> int:
        """Features of a head."""
        ...

    def slim(self, module: nn.Module, kept: list[int]) -> None:
        """Keep only the heads at `kept`, in place."""


@dataclass(frozen=True, slots=True)
class ModuleAttention:
    """An nn.MultiheadAttention, by the name of it."""

    name: str
    heads: int
    size: int

    @property
    def output(self) -> str:
        """The linear layer that reads the heads' features side by side."""
        return f"{self.name}.out_proj"

    def slim(self, module: nn.Module, kept: list[int]) -> None:
        """Put attention with fewer heads in its place."""
        whole = module.get_submodule(self.name)
        assert isinstance(whole, nn.MultiheadAttention), "found as one"
        owner, _, attribute = self.name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, SlimAttention(whole, kept).train(whole.training))


def find_attentions(module: nn.Module, inputs: Sequence[Tensor]) -> tuple[nn.Module, list[Attention]]:
    """Return a copy of the module, a graph if its attention is made of linear layers, and its attentions.

    Raises:
        PassError: none is found.
    """
    copied = copy.deepcopy(module)
    whole: list[Attention] = [
        ModuleAttention(name, layer.num_heads, layer.head_dim)
        for name, layer in copied.named_modules()
        if isinstance(layer, nn.MultiheadAttention)
    ]
    if whole:
        return copied, whole

    def found(graph: fx.GraphModule) -> list[Attention]:
        return list(graph_attentions(graph, inputs))

    def refused(reason: str) -> PassError:
        return PassError(
            "No attention was found: there is no nn.MultiheadAttention, and the module cannot be traced "
            f"({reason}); give its ONNX file instead."
        )

    with quiet():
        graph = run_foreign(lambda: traced(copied), refused)
        attentions = run_foreign(lambda: found(graph), refused)
    if not attentions:
        raise PassError("The module has no attention with more than one head that could be found.")
    return graph, attentions


def slimmed(
    module: nn.Module,
    attentions: Sequence[Attention],
    kept: Mapping[str, list[int]],
    inputs: Sequence[Tensor],
    context: "Context",
) -> tuple[nn.Module, list[Attention]]:
    """Return the module with heads cut where that means what it should, and whose heads they were.

    Raises:
        PassError: heads were to go, and none could be cut.
    """
    done, failed = list[Attention](), None
    for attention in attentions:
        context.check_time()
        gone = [head for head in range(attention.heads) if head not in kept[attention.name]]
        if not gone:
            continue
        candidate = copy.deepcopy(module)
        try:
            with Deaf(module, attention, gone):
                expected = _answers(module, inputs)
            cut = partial(_cut_answers, candidate, attention, kept[attention.name], inputs)
            found = run_foreign(
                cut, lambda reason: PassError(f"It does not work with fewer heads ({reason}).")
            )
        except PassError as error:
            failed = PassError(f"The heads of {attention.name} cannot be cut. {error}")
            continue
        if _alike(expected, found):
            module = candidate
            done.append(attention)
        else:
            failed = PassError(f"The heads of {attention.name} cannot be cut: it would answer otherwise.")
    if failed is not None and not done:
        raise failed
    return module, done


def _cut_answers(
    candidate: nn.Module, attention: Attention, kept: list[int], inputs: Sequence[Tensor]
) -> list[Tensor]:
    attention.slim(candidate, kept)
    return _answers(candidate, inputs)


class Deaf:
    """While it lasts, the output projection does not listen to some heads."""

    def __init__(self, module: nn.Module, attention: Attention, heads: list[int]) -> None:
        self._weight = columns(module, attention)
        self._places = rows_of_heads(heads, attention.size)
        self._before = self._weight[:, self._places].clone()

    def __enter__(self) -> None:
        self._weight[:, self._places] = 0.0

    def __exit__(self, *error: object) -> None:
        self._weight[:, self._places] = self._before


def columns(module: nn.Module, attention: Attention) -> Tensor:
    """Return the output projection's weight, (outputs, heads * size), detached."""
    return module.get_submodule(attention.output).get_parameter("weight").detach()


def _answers(module: nn.Module, inputs: Sequence[Tensor]) -> list[Tensor]:
    with torch.no_grad(), quiet():
        return list(outputs_of(module.eval()(*inputs)))


def _alike(expected: Sequence[Tensor], found: Sequence[Tensor]) -> bool:
    for before, after in zip(expected, found, strict=True):
        if before.shape != after.shape:
            return False
        scale = max(float(before.abs().max()), 1e-6) if before.numel() else 1.0
        if before.numel() and not float((before - after).abs().max()) <= TOLERANCE * scale:
            return False
    return True
