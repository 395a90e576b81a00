"""Every pass by the name that recipes call it: where its class is, and what it makes of a model.

By name, so that reading a recipe imports torch only when one of its passes needs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Entry:
    """One pass.

    Attributes:
        place: `module:class`, the module below flyweight.compressor.passes.
        kind: what the pass makes of a model, in a word or two for tables; empty for steps that make no
            difference worth a name, such as the export that every recipe of a torch module has.
    """

    place: str
    kind: str


CATALOGUE: Final[Mapping[str, Entry]] = {
    # Between the two forms.
    "export": Entry("export:Export", ""),
    # Quantization.
    "static-int8": Entry("quantize.static_int8:StaticInt8", "static int8"),
    "dynamic-int8": Entry("quantize.dynamic_int8:DynamicInt8", "dynamic int8"),
    "fp16": Entry("quantize.fp16:Fp16Storage", "fp16 storage"),
    # Pruning.
    "prune": Entry("prune.structured:StructuredPrune", "pruned"),
    # Sharing and coding.
    # Factorisation.
    # Narrow networks.
    "narrow": Entry("narrow.width:NarrowWidth", "narrow"),
    # Distillation and training.
    "fine-tune": Entry("distill.soft_labels:FineTune", "fine-tuned"),
    "distill": Entry("distill.soft_labels:SoftLabelDistillation", "distilled"),
    # Transfer.
    # Layout of the graph.
}
