"""Which lengths of its inputs an imported module takes, and which of them its graph fixed.

A module's own forward() does not say so, and an exported graph must take exactly what the original took.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from torch import fx

Lengths: TypeAlias = tuple[int | None, ...]

_KEY: Final = "flyweight_surface"


@dataclass(frozen=True, slots=True)
class Surface:
    """The shapes of a module's inputs, by name; None for a free length.

    Attributes:
        graph: what the ONNX graph declares.
        module: what the module takes: the batch axis is free also where the graph fixed it, if the module
            answers every number of rows alike.
    """

    graph: Mapping[str, Lengths]
    module: Mapping[str, Lengths]


def remember_surface(module: fx.GraphModule, surface: Surface) -> None:
    """Note a module's surface on it; copies of a graph module keep it."""
    module.meta[_KEY] = surface


def surface_of(module: object) -> Surface | None:
    """Return the surface noted on a module, or None for one that was not imported."""
    found = getattr(module, "meta", {})
    surface = found.get(_KEY) if isinstance(found, Mapping) else None
    return surface if isinstance(surface, Surface) else None
