"""The compressor: passes, recipes, evaluation, search, and the rule that a worse variant is not published.

In short: `compress("model.onnx", data="samples.npz", repository="repository", name="mynet")`.
"""

import os
from typing import TYPE_CHECKING, Any

# Before onnxruntime is loaded, as for the server: it tells nobody of the models that are compressed.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from flyweight.compressor.compression import compress
    from flyweight.compressor.data import DataSet, load_data
    from flyweight.compressor.gate import Limits
    from flyweight.compressor.model import Model
    from flyweight.compressor.options import Options
    from flyweight.compressor.outcome import CompressionReport
    from flyweight.compressor.passes.base import Pass, PassSequence
    from flyweight.compressor.recipe import load_recipes

__all__ = [
    "CompressionReport",
    "DataSet",
    "Limits",
    "Model",
    "Options",
    "Pass",
    "PassSequence",
    "compress",
    "load_data",
    "load_recipes",
]

_PLACES = {
    "CompressionReport": "outcome",
    "DataSet": "data",
    "Limits": "gate",
    "Model": "model",
    "Options": "options",
    "Pass": "passes.base",
    "PassSequence": "passes.base",
    "compress": "compression",
    "load_data": "data",
    "load_recipes": "recipe",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line must not pay for all of it."""
    from importlib import import_module

    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
