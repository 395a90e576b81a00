"""Recipes that are known to be good, which a search tries before it looks for better ones.

The plain recipes of a run without a budget are among them, with the same options, so that a search never
misses what these reach. Quick ones come first: time may run out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.search.space import Favourite

# Only where these are is there something to cut, and attention is better left to its own passes.
_CUT: Final = frozenset({"Conv", "Gemm", "MatMul"})
_NORMALISATIONS: Final = frozenset({"LayerNormalization", "SimplifiedLayerNormalization", "ReduceMean"})
_PLAIN_INT8: Final = {"static-int8.calibration": "minmax", "static-int8.exclude": ()}


@dataclass(frozen=True, slots=True)
class Traits:
    """What decides which recipes are likely to be good for a model.

    Attributes:
        attends: it is a transformer.
        learns: it has layers to cut, and there are samples to recover with.
    """

    attends: bool
    learns: bool


def is_transformer(operators: frozenset[str]) -> bool:
    """Tell by a graph's operators whether it is a transformer: it attends, and normalises."""
    return "Softmax" in operators and bool(operators & _NORMALISATIONS)


def is_cuttable(operators: frozenset[str]) -> bool:
    """Tell by a graph's operators whether channels can be cut, with what is left learning to do without."""
    return bool(operators & _CUT) and not is_transformer(operators)


def operators_of(path: Path) -> frozenset[str]:
    """Return the types of all operators of the main graph.

    Raises:
        ModelError: the file cannot be read.
    """
    return frozenset(node.op_type for node in load_graph(path, weights=False).graph.node)


def favourites(traits: Traits) -> tuple[Favourite, ...]:
    """Return the recipes to begin with, the quickest first."""
    quick = [
        Favourite({"numbers": "static-int8"}, _PLAIN_INT8),
        Favourite({"numbers": "dynamic-int8"}),
        Favourite({"numbers": "fp16"}),
        Favourite({"numbers": "weight-only"}, {"weight-only.bits": 4}),
    ]
    if traits.attends:
        quick += [
            Favourite({"graph": "fuse-graph"}),
            Favourite({"graph": "fuse-graph", "numbers": "dynamic-int8"}),
            Favourite(
                {"graph": "fuse-prune", "numbers": "dynamic-int8"}, {"fuse-prune/1-prune-graph.ratio": 0.2}
            ),
            Favourite({"graph": "fuse-graph", "numbers": "weight-only"}, {"weight-only.bits": 4}),
        ]
    else:
        quick.append(
            Favourite(
                {"graph": "prune-graph", "numbers": "static-int8"}, {"prune-graph.ratio": 0.1, **_PLAIN_INT8}
            )
        )
    smallest = Favourite({"numbers": "static-int8", "coding": "encode"}, _PLAIN_INT8)
    return (*quick, smallest, *(_trained() if traits.learns else ()))


def _trained() -> tuple[Favourite, ...]:
    """Return students and pruned networks, in int8: small and few numbers multiply each other's gains.

    Two come in fp32 as well, with a training that is remembered, for models that int8 harms.
    """
    return (
        _student("narrow", 0.375),
        _pruned(0.5),
        _student("compact", 0.375),
        _student("narrow", 0.25),
        _pruned(0.75),
        _student("narrow", 0.375, int8=False),
        _pruned(0.5, int8=False),
    )


def _student(choice: str, width: float, *, int8: bool = True) -> Favourite:
    narrow, distill = (
        ("narrow", "narrow/1-distill")
        if choice == "narrow"
        else (
            f"{choice}/1-narrow",
            f"{choice}/2-distill",
        )
    )
    return _stored(choice, {f"{narrow}.width": width, f"{distill}.training.epochs": 16}, int8=int8)


def _pruned(ratio: float, *, int8: bool = True) -> Favourite:
    options = {
        "prune.ratio": ratio,
        "prune.scope": "layer",
        "prune.importance": "magnitude",
        "prune/1-fine-tune.training.epochs": 8,
    }
    return _stored("prune", options, int8=int8)


def _stored(shape: str, options: Mapping[str, object], *, int8: bool) -> Favourite:
    if not int8:
        return Favourite({"shape": shape}, options)
    return Favourite({"shape": shape, "numbers": "static-int8"}, {**options, **_PLAIN_INT8})
