"""From an ONNX graph to a torch module that can be pruned and trained without the model's source code."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from torch import fx

from flyweight.compressor.errors import ModelError
from flyweight.compressor.feeding import Layout, fit
from flyweight.compressor.importer import import_onnx
from flyweight.compressor.importer.checking import TOLERANCE, answers_of, relative_difference
from flyweight.compressor.importer.surface import Lengths, Surface, remember_surface
from flyweight.compressor.model import Array, Model, example_of
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.training import threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

CHECKED_ROWS: Final = (1, 3)
"""Batch lengths that the module is built on and checked with, where the graph takes any."""


@dataclass(frozen=True, slots=True)
class Import(Pass):
    """Turns a graph into torch's own layers, checked against ONNX Runtime to 1e-5 on calibration samples.

    A graph that fixes its batch axis becomes a module that takes any number of rows, where the module answers
    two rows together as it answers each alone: training needs batches. The export fixes the axis again.
    """

    name: ClassVar[str] = "import"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.TORCH

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the module, its inputs in the graph's order.

        Raises:
            ModelError: the graph cannot be read, uses operators the importer does not know, or the module
                does not answer as ONNX Runtime does.
            DataError: the calibration samples do not fit the graph.
        """
        path = model.onnx_path()
        signature = Session(path, SessionSettings(optimise=False)).signature
        data = context.calibration
        layout = fit(data, signature)
        lengths = CHECKED_ROWS if layout.rows is None else (layout.rows,)
        feeds = [
            {spec.name: layout.sample_feed(data, rows)[spec.name] for spec in signature.inputs}
            for rows in lengths
        ]
        with threads(context.threads):
            module = import_onnx(path, feeds)
            freed = layout.rows is not None and _takes_any_number(module, path, layout, feeds[0])
        declared = {spec.name: spec.shape for spec in signature.inputs}
        taken = {name: _freed(shape) if freed else shape for name, shape in declared.items()}
        remember_surface(module, Surface(declared, taken))
        example = example_of(feeds[0]) if layout.rows is None or freed else feeds[0]
        imported = Model(
            module=module,
            example={name: np.array(array, order="C") for name, array in example.items()},
            output_names=tuple(spec.name for spec in signature.outputs),
        )
        return PassResult(imported, changed=True, notes=(_describe(module),))


def _takes_any_number(module: fx.GraphModule, path: Path, layout: Layout, feed: Mapping[str, Array]) -> bool:
    """Return whether a module of a graph with a fixed batch answers any number of rows alike."""
    if set(feed) != layout.batched:
        return False
    rows = len(next(iter(feed.values())))
    # The second half differs from the first, so that an answer that mixes rows is noticed.
    twice = {name: np.concatenate([array, _other(array)]) for name, array in feed.items()}
    try:
        together = answers_of(module, path, list(twice.values()))
        parts = [
            answers_of(module, path, [array[half] for array in twice.values()]) for half in _halves(rows)
        ]
    except ModelError:
        return False
    return all(
        whole.shape[:1] == (2 * rows,)
        and relative_difference(np.concatenate([first, second]), whole) <= TOLERANCE
        for whole, first, second in zip(together, *parts, strict=True)
    )


def _other(rows: Array) -> Array:
    """Return other valid rows of the same type: each with its elements in reverse order."""
    return rows.reshape(len(rows), -1)[:, ::-1].reshape(rows.shape)


def _halves(rows: int) -> tuple[slice, slice]:
    return slice(0, rows), slice(rows, 2 * rows)


def _freed(shape: Lengths) -> Lengths:
    return (None, *shape[1:])


def _describe(module: fx.GraphModule) -> str:
    layers = sum(1 for node in module.graph.nodes if node.op == "call_module")
    weights = sum(parameter.numel() for parameter in module.parameters())
    return f"Imported from ONNX as {layers} layers with {weights:,} weights; answers as ONNX Runtime does."
