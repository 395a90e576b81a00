"""Looking on while a torch module's layers run."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial

from torch import nn

Seen = Callable[[str, tuple[object, ...], object], None]
"""Told the name of a layer, its positional arguments and what it returned; returns nothing."""


@contextmanager
def watched(layers: Mapping[str, nn.Module], seen: Seen) -> Iterator[None]:
    """Call `seen` whenever one of the layers has run, until the context ends."""

    def hook(name: str, _layer: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        seen(name, inputs, output)

    with ExitStack() as handles:
        for name, layer in layers.items():
            handles.callback(layer.register_forward_hook(partial(hook, name)).remove)
        yield
