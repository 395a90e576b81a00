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
    "import": Entry("importing:Import", ""),
    "export": Entry("export:Export", ""),
    # Quantization.
    "static-int8": Entry("quantize.static_int8:StaticInt8", "static int8"),
    "dynamic-int8": Entry("quantize.dynamic_int8:DynamicInt8", "dynamic int8"),
    "fp16": Entry("quantize.fp16:Fp16Storage", "fp16 storage"),
    "mixed-int8": Entry("quantize.mixed_int8:MixedInt8", "mixed int8"),
    "weight-only": Entry("quantize.weight_only:WeightOnly", "quantized weights"),
    "equalize": Entry("quantize.equalize:Equalize", "equalised"),
    "simulate": Entry("quantize.simulate:Simulate", "few bits"),
    "qat": Entry("quantize.qat:QuantizationAwareTraining", "trained quantized"),
    # Pruning.
    "prune": Entry("prune.structured:StructuredPrune", "pruned"),
    "prune-heads": Entry("prune.heads:PruneHeads", "fewer heads"),
    "prune-graph": Entry("prune.prune_graph:PruneGraph", "pruned"),
    "sparsify": Entry("prune.sparsify:Sparsify", "sparse"),
    "sparsify-graph": Entry("prune.sparsify_graph:SparsifyGraph", "sparse"),
    # Sharing and coding.
    "share": Entry("share.share:Share", "shared"),
    "share-train": Entry("share.trained:TrainedShare", "shared"),
    "encode": Entry("share.encode:Encode", "coded"),
    # Factorisation.
    "factorize": Entry("factorize.modules:Factorize", "factorised"),
    "factorize-graph": Entry("factorize.graph:FactorizeGraph", "factorised"),
    # Narrow networks.
    "narrow": Entry("narrow.width:NarrowWidth", "narrow"),
    "architecture": Entry("architecture:ArchitectureSearch", "searched architecture"),
    "separate": Entry("narrow.separation:Separate", "depthwise-separable"),
    "fuse": Entry("narrow.fusion:Fuse", "fused"),
    "pool-to-stride": Entry("narrow.strides:PoolToStride", "strided"),
    "replace-activations": Entry("narrow.activations:ReplaceActivations", "other activations"),
    "drop-blocks": Entry("narrow.blocks:DropBlocks", "shallower"),
    # Distillation and training.
    "fine-tune": Entry("distill.soft_labels:FineTune", "fine-tuned"),
    "distill": Entry("distill.soft_labels:SoftLabelDistillation", "distilled"),
    "hints": Entry("distill.hints:HintDistillation", "distilled with hints"),
    # Transfer.
    "replace-head": Entry("transfer.heads:ReplaceHead", "new head"),
    "freeze": Entry("transfer.freezing:Freeze", ""),
    # Layout of the graph.
    "fuse-graph": Entry("layout.fuse:FuseGraph", "fused"),
    "merge-matmuls": Entry("layout.merge:MergeMatMuls", "merged"),
}
