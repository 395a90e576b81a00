"""Everything that is measured of a variant."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from flyweight.compressor.evaluate.energy import Energy
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.load_time import LoadTime
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.evaluate.robustness import Robustness
from flyweight.compressor.evaluate.stability import Stability
from flyweight.compressor.safety.triggers import TriggerCheck

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The figures of one variant, taken in onnxruntime with the session settings of its manifest.

    What has a default may not have been measured.

    Attributes:
        file_bytes: of what is published: model.onnx and its external data, or a coded file.
        parameters: weights in the graph.
        macs: multiply-accumulate operations for one sample; None where the shapes do not tell.
        quality: on the evaluation data.
        latency: one point for each batch size the model can run.
        pss_bytes: memory that loading and running it adds to a process, shared pages counted by share.
        compressed_bytes: of what is published, after deflate.
        nonzero_parameters: weights that are not zero.
        bits_per_weight: bits of what is published, for each weight.
        macs_unknown: why `macs` is None.
        latency_grid: further points, for other batch sizes and numbers of threads.
        load: time to a ready session.
        energy: of one run at the smallest batch; an estimate.
        robustness: what is left on disturbed inputs.
        stability: what a long run showed.
        trigger: what patches showed.
        predictions: the class of each evaluation sample, first axis = samples; None where none is predicted.
    """

    file_bytes: int
    parameters: int
    macs: int | None
    quality: Quality
    latency: tuple[LatencyPoint, ...]
    pss_bytes: int
    compressed_bytes: int | None = None
    nonzero_parameters: int | None = None
    bits_per_weight: float | None = None
    macs_unknown: str = ""
    latency_grid: tuple[LatencyPoint, ...] = ()
    load: LoadTime | None = None
    energy: Energy | None = None
    robustness: Robustness | None = None
    stability: Stability | None = None
    trigger: TriggerCheck | None = None
    predictions: Array | None = field(default=None, compare=False, repr=False)

    @property
    def speedup(self) -> float:
        """Against the baseline, at the smallest batch measured."""
        return self.latency[0].speedup
