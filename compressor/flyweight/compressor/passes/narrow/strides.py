"""Pooling replaced by strides, so that the layers before it work on a quarter of the places."""

import copy
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Final

from torch import fx, nn

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.narrow.tracing import (
    is_called_once,
    layer_of,
    shape_of,
    shaped,
    tidied,
    traced,
)
from flyweight.compressor.training import tensor_of, threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context
    from flyweight.compressor.model import Model


class Place(Enum):
    """Which convolution gets the stride."""

    FIRST = "first"
    """The first of those between two changes of size: all of them get cheaper."""

    LAST = "last"
    """The one just before the pooling: only that gets cheaper, and the answers change less."""


_POOLS: Final = (nn.MaxPool2d, nn.AvgPool2d)
_POINTWISE: Final = (
    *(nn.BatchNorm2d, nn.Identity, nn.Dropout, nn.Dropout2d, nn.ReLU, nn.ReLU6, nn.Hardswish),
    *(nn.SiLU, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Sigmoid, nn.Tanh),
)


@dataclass(frozen=True, slots=True)
class PoolToStride(Pass):
    """Gives a convolution before a pooling the pooling's stride, and removes the pooling.

    Springenberg et al. 2015, "Striving for simplicity: the all convolutional net", section 2. With the stride
    at the first convolution after the last change of size, everything between works on a quarter of the
    places: the early layers of small networks are most of their latency, however few channels they have.
    Needs distillation afterwards.

    Attributes:
        place: which convolution gets the stride.
        pools: at most so many poolings, from the input on, where maps are largest; 0 for all.
    """

    name: ClassVar[str] = "pool-to-stride"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    place: Place = Place.FIRST
    pools: int = 0

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RecipeError: it is out of it.
        """
        if self.pools < 0:
            raise RecipeError(f"The number of poolings is 0 for all, or more, and {self.pools} is not.")

    def apply(self, model: "Model", context: "Context") -> PassResult:
        """Return the module as a graph with fewer poolings.

        Raises:
            PassError: the module cannot be traced, or has no such pooling.
        """
        example = [tensor_of(array) for array in model.example.values()]
        with threads(context.threads):
            graph, names = traced(model.torch_module(), example), list[str]()
        for node in list(graph.graph.nodes):
            if self.pools and len(names) == self.pools:
                break
            chosen = self._convolution_before(graph, node)
            if chosen is not None:
                _move(graph, node, chosen)
                shaped(graph, example)
                names.append(str(chosen.target))
        if not names:
            raise PassError(
                "The module has no pooling of 2x2 whose work a convolution before it could do; leave "
                "pool-to-stride out."
            )
        tidied(graph)
        note = f"{len(names)} poolings became strides of the convolutions {', '.join(names)}."
        return PassResult(replace(model, module=graph), changed=True, notes=(note,))

    def _convolution_before(self, graph: fx.GraphModule, pool: fx.Node) -> fx.Node | None:
        """Return the convolution that may do a pooling's work, or None."""
        if not _halves(layer_of(graph, pool)):
            return None
        found, node = list[fx.Node](), pool.args[0]
        while isinstance(node, fx.Node) and len(node.users) == 1 and node.args:
            layer = layer_of(graph, node)
            if isinstance(layer, nn.Conv2d) and is_called_once(graph, node) and layer.stride == (1, 1):
                found.append(node)
                if shape_of(node) != _like(shape_of(node), shape_of(node.args[0])):
                    break
            elif not isinstance(layer, _POINTWISE):
                break
            node = node.args[0]
        fitting = [candidate for candidate in found if _fits(graph, candidate, pool)]
        if not fitting:
            return None
        return fitting[-1] if self.place is Place.FIRST else fitting[0]


def _halves(layer: nn.Module | None) -> bool:
    """Return whether a layer is a pooling of 2 x 2 places into one."""
    return (
        isinstance(layer, _POOLS)
        and all(value in {2, (2, 2)} for value in (layer.kernel_size, layer.stride))
        and layer.padding in {0, (0, 0)}
        and not layer.ceil_mode
    )


def _like(shape: tuple[int, ...] | None, other: tuple[int, ...] | None) -> tuple[int, ...] | None:
    """Return `shape` with the height and width of `other`."""
    return None if shape is None or other is None else (*shape[:2], *other[2:])


def _fits(graph: fx.GraphModule, node: fx.Node, pool: fx.Node) -> bool:
    """Return whether the convolution with a stride of 2 gives maps of the size that the pooling gives."""
    layer, shape, wanted = layer_of(graph, node), shape_of(node.args[0]), shape_of(pool)
    if not isinstance(layer, nn.Conv2d) or shape is None or wanted is None or isinstance(layer.padding, str):
        return False
    sizes = [
        (length + 2 * pad - spread * (kernel - 1) - 1) // 2 + 1
        for length, pad, spread, kernel in zip(
            shape[2:], layer.padding, layer.dilation, layer.kernel_size, strict=True
        )
    ]
    return tuple(sizes) == tuple(wanted[2:])


def _move(graph: fx.GraphModule, pool: fx.Node, chosen: fx.Node) -> None:
    layer = copy.deepcopy(layer_of(graph, chosen))
    assert isinstance(layer, nn.Conv2d), "chosen as one"
    layer.stride = (2, 2)
    graph.set_submodule(str(chosen.target), layer)
    source = pool.args[0]
    assert isinstance(source, fx.Node), "a pooling reads the output of a layer"
    pool.replace_all_uses_with(source)
