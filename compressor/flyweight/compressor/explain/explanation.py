"""Everything that explains one variant, for the report."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.errors import CompressorError
from flyweight.compressor.evaluate.bench import Bench
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.explain.audit import Finding, audit
from flyweight.compressor.explain.flips import Flips, find_flips
from flyweight.compressor.explain.layers import LayerChange, compare_layers
from flyweight.compressor.explain.profiling import profile
from flyweight.compressor.explain.saliency import Answer, SaliencyAgreement, compare_saliency
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.sessions import Session

Array = NDArray[Any]

# Samples whose inner activations are compared: ratios of energies hardly move with more.
_LAYER_ROWS: Final = 4
# Saliency asks each model fifty times for each sample; this is what a reader waits for it.
_SALIENCY_SECONDS: Final = 4.0
_MOST_SALIENCY_ROWS: Final = 16
_QUESTIONS: Final = 50
# Half precision has 16 bits a value.
_HALF_BITS: Final = 16


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a variant is what it is; what could not be found out is None or empty.

    Attributes:
        layers: what changed in each.
        flips: which answers changed.
        saliency: whether it looks at the same places.
        audit: why it is not faster.
        notes: what could not be explained, and why.
    """

    layers: tuple[LayerChange, ...] = ()
    flips: Flips | None = None
    saliency: SaliencyAgreement | None = None
    audit: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the part of the JSON document, under the key `explanation`."""
        return dataclasses.asdict(self)


def explain(bench: Bench, baseline: tuple[Path, Evaluation], variant: tuple[Path, Evaluation]) -> Explanation:
    """Explain a variant that was measured; a part that cannot be had is told in a note and left out.

    Args:
        bench: that measured both.
        baseline: the original's ONNX file and figures.
        variant: the variant's; a coded one decoded.
    """
    old, (path, measured) = baseline[0], variant
    rows = bench.asking.batches((_LAYER_ROWS,))[0]
    feed = bench.asking.layout.sample_feed(bench.data, min(rows, bench.data.samples))
    notes: list[str] = []
    layers: tuple[LayerChange, ...] = ()
    try:
        layers = compare_layers(old, path, feed)
    except CompressorError as error:
        notes.append(f"Layers were not compared: {error}")
    findings: tuple[Finding, ...] = ()
    try:
        findings = _audit(bench, path, layers)
    except CompressorError as error:
        notes.append(f"The optimised graph was not audited: {error}")
    before, after = baseline[1].predictions, measured.predictions
    flips = None if before is None or after is None else find_flips(before, after, bench.data)
    saliency = None
    try:
        saliency = _saliency(bench, path, baseline[1], measured)
    except CompressorError as error:
        notes.append(f"What the answers depend on was not compared: {error}")
    return Explanation(layers, flips, saliency, findings, tuple(notes))


def _audit(bench: Bench, path: Path, layers: tuple[LayerChange, ...]) -> tuple[Finding, ...]:
    batch = bench.asking.batches((1,))[0]
    feed = bench.asking.layout.sample_feed(bench.data, batch)
    parameters = sum(layer.parameters for layer in layers) or 1
    zeros = sum(layer.zeros * layer.parameters for layer in layers) / parameters
    halves = any(layer.bits == _HALF_BITS for layer in layers)
    profiled = profile(path, feed, bench.settings.session)
    return audit(profiled, load_graph(path, weights=False), zeros, halves=halves)


def _saliency(bench: Bench, path: Path, before: Evaluation, after: Evaluation) -> SaliencyAgreement | None:
    rows = _saliency_rows(bench, before, after)
    if rows == 0 or bench.asking.layout.rows is not None or bench.asking.rows == 1:
        return None
    inputs = bench.asking.layout.sample_feed(bench.data, rows)
    answer = _scores(bench.session, bench)
    if answer(inputs).ndim != 2 or answer(inputs).shape[1] < 2:
        return None
    return compare_saliency(answer, _scores(Session(path, bench.settings.session), bench), inputs)


def _saliency_rows(bench: Bench, before: Evaluation, after: Evaluation) -> int:
    """Return how many samples fit in the time; none where one does not."""
    each = sum(min(p.p50_seconds / p.batch for p in found.latency) for found in (before, after))
    return min(
        _MOST_SALIENCY_ROWS, int(_SALIENCY_SECONDS / (_QUESTIONS * max(each, 1e-7))), bench.data.samples
    )


def _scores(session: Session, bench: Bench) -> Answer:
    """Return a function that gives the scores of classes: the output that predicts, or the first."""
    task = bench.reference.task
    name = task.output if task is not None else session.signature.outputs[0].name

    def answer(inputs: Mapping[str, Array]) -> Array:
        return np.asarray(session.run(inputs)[name])

    return answer
