"""Everything that is measured of a variant."""

from dataclasses import dataclass

from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.quality import Quality


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one variant, taken in onnxruntime with the session settings of its manifest.

    Attributes:
        file_bytes: of model.onnx and its external data.
        parameters: weights in the graph.
        macs: multiply-accumulate operations for one sample; None where the shapes do not tell.
        quality: on the evaluation data.
        latency: one point for each batch size the model can run.
        pss_bytes: memory that loading and running it adds to a process, shared pages counted by share.
    """

    file_bytes: int
    parameters: int
    macs: int | None
    quality: Quality
    latency: tuple[LatencyPoint, ...]
    pss_bytes: int

    @property
    def speedup(self) -> float:
        """Against the baseline, at the smallest batch measured."""
        return self.latency[0].speedup
