"""The stages and choices that a search has when nobody gives it others: a table, no more.

A line for each way to do a stage; a pass that this installation lacks takes its lines with it. Stages come in
the order in which their passes are applied: first the module's shape, which is trained, then what is done to
the graph, then its numbers, then how they are stored.
"""

from collections.abc import Sequence
from typing import Final

from flyweight.compressor.passes.base import Form
from flyweight.compressor.search.favourites import Traits, favourites
from flyweight.compressor.search.sensitivity import spared
from flyweight.compressor.search.space import Choice, Gene, Space, Stage, Step

AS_IS: Final = Choice("as-is")
_RECOVERY: Final = {"training": {"epochs": Gene((2, 4, 8, 16)), "learning_rate": 1e-3}}
_STUDENT: Final = {"training": {"epochs": Gene((8, 16, 24)), "learning_rate": 2e-3}}


def default_space(
    form: Form,
    sensitive: Sequence[Sequence[str]] = (),
    *,
    trains: bool = True,
    traits: Traits | None = None,
) -> Space:
    """Return the space for a model.

    Args:
        form: of the model.
        sensitive: names of layers in groups, the most sensitive first; see sensitivity.py.
        trains: whether choices that train may be taken.
        traits: of the model, by which the first recipes are chosen; None tries every choice alone first.
    """
    stages = (
        Stage("shape", (AS_IS, *(_SHAPES if trains else ()))),
        Stage("graph", (AS_IS, *_GRAPHS)),
        Stage("numbers", (AS_IS, *_numbers(sensitive, trains=trains))),
        Stage("coding", (AS_IS, *_CODINGS)),
    )
    return Space(stages, form, () if traits is None else favourites(traits))


_SHAPES: Final = (
    Choice(
        "prune",
        (
            Step(
                "prune",
                {
                    "ratio": Gene((0.125, 0.25, 0.375, 0.5, 0.625, 0.75)),
                    # Among whom the least important are chosen: with `sensitivity` each layer loses what it
                    # can spare, as measured.
                    "scope": Gene(("layer", "global", "sensitivity"), ordered=False),
                    "importance": Gene(("magnitude", "taylor"), ordered=False),
                },
            ),
            Step("fine-tune", _RECOVERY),
        ),
    ),
    Choice("narrow", (Step("narrow", {"width": Gene((0.25, 0.375, 0.5, 0.75))}), Step("distill", _STUDENT))),
    # Refused at once where there are no poolings to take the place of.
    Choice(
        "compact",
        (
            Step("pool-to-stride"),
            Step("narrow", {"width": Gene((0.25, 0.375, 0.5, 0.75))}),
            Step("distill", _STUDENT),
        ),
    ),
    Choice(
        "architecture",
        (Step("architecture", {"macs": Gene((0.125, 0.25, 0.375, 0.5, 0.7))}), Step("fine-tune", _RECOVERY)),
    ),
    Choice(
        "factorize",
        (Step("factorize", {"energy": Gene((0.8, 0.9, 0.95, 0.98))}), Step("fine-tune", _RECOVERY)),
    ),
    Choice("prune-heads", (Step("prune-heads", {"ratio": Gene((0.25, 0.5))}), Step("fine-tune", _RECOVERY))),
    Choice("drop-blocks", (Step("drop-blocks", {"blocks": Gene((1, 2, 3))}), Step("fine-tune", _RECOVERY))),
    Choice("separate", (Step("separate"), Step("distill", _STUDENT))),
)

_CUT: Final = {"ratio": Gene((0.05, 0.1, 0.2, 0.3))}

_GRAPHS: Final = (
    Choice("factorize-graph", (Step("factorize-graph", {"energy": Gene((0.9, 0.95, 0.98, 0.99))}),)),
    Choice("fuse-graph", (Step("fuse-graph"),)),
    Choice("prune-graph", (Step("prune-graph", _CUT),)),
    Choice("fuse-prune", (Step("fuse-graph"), Step("prune-graph", _CUT))),
    Choice("merge-matmuls", (Step("merge-matmuls"),)),
)

_CODINGS: Final = (
    Choice("encode", (Step("encode"),)),
    Choice(
        "share-encode",
        (
            Step("share", {"sharing": {"bits": Gene((3, 4, 5, 6)), "conv_bits": Gene((4, 5, 6, 8))}}),
            Step("encode"),
        ),
    ),
)


def _numbers(sensitive: Sequence[Sequence[str]], *, trains: bool) -> tuple[Choice, ...]:
    post_training = (
        Choice(
            "static-int8",
            (
                Step(
                    "static-int8",
                    {
                        "calibration": Gene(("minmax", "percentile", "entropy"), ordered=False),
                        "exclude": Gene(spared(sensitive)),
                    },
                ),
            ),
        ),
        Choice("dynamic-int8", (Step("dynamic-int8"),)),
        # Bits for each layer by its own measured sensitivity.
        Choice("mixed-int8", (Step("mixed-int8", {"target_db": Gene((15.0, 20.0, 25.0, 30.0))}),)),
        Choice("weight-only", (Step("weight-only", {"bits": Gene((4, 8))}),)),
        Choice("fp16", (Step("fp16"),)),
    )
    trained = (Choice("qat", (Step("qat"), Step("static-int8"))),)
    return (*post_training, *trained) if trains else post_training
