"""How much each layer minds being quantized: measured once a model, and kept in the cache.

Layers are quantized one group at a time, everything else left in floating point, and the answers compared
with the original's on some calibration samples:

    loss = sum (y - q)^2 / sum y^2,    the inverse of the signal-to-noise ratio,

which adds up over layers to first order (Z. Dong et al., "HAWQ", ICCV 2019, motivates the same ranking by
second derivatives; here it is measured). A search then chooses how many of the most sensitive layers stay.
"""

import contextlib
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.caching import key_of
from flyweight.compressor.errors import CompressorError, OutOfTimeError
from flyweight.compressor.feeding import fit
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.quantize.static_int8 import StaticInt8
from flyweight.compressor.sessions import Session, SessionSettings

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

Array = NDArray[Any]

# Enough to tell sensitive layers from others; the ranking is what counts, not the figure.
_SAMPLES: Final = 32
# A group more costs as much time as a trial's quantization, and says less than a trial does.
MOST_GROUPS: Final = 12
_ROWS: Final = 8


def measure_sensitivity(path: Path, context: "Context", groups: int = MOST_GROUPS) -> list[list[str]]:
    """Return the names of a graph's weighted nodes in groups of neighbours, the most sensitive group first.

    Groups that cannot be quantized are left out: there is nothing to choose. Where time runs short, what was
    not measured comes last.

    Args:
        path: of an ONNX model in floating point.
        context: its calibration data serve, and its workspace.
        groups: at most so many.
    """
    short = replace(context, calibration=context.calibration.first(_SAMPLES))
    graph = load_graph(path, weights=False)
    layers = [node.name for node in graph.graph.node if node.op_type in _LAYERS and node.name]
    others = sorted({node.op_type for node in graph.graph.node if node.op_type not in _LAYERS})
    parts = [list(part) for part in np.array_split(np.array(layers, dtype=object), groups) if len(part)]
    losses: list[tuple[float, int]] = []
    for place, part in enumerate(parts):
        context.progress("sensitivity", place, len(parts))
        try:
            short.check_time()
            spared = tuple(name for name in layers if name not in part)
            losses.append((_loss(path, (*spared, *others), short), place))
        except OutOfTimeError:
            losses.append((-1.0, place))
        except CompressorError:
            continue
    context.progress("sensitivity", len(parts), len(parts))
    return [parts[place] for _, place in sorted(losses, key=lambda pair: (-pair[0], pair[1]))]


def remembered(path: Path, context: "Context", folder: Path, known: Mapping[str, object]) -> list[list[str]]:
    """Return `measure_sensitivity` of an earlier run, or of this one, kept in `folder` as JSON.

    Args:
        path: of the model.
        context: as above.
        folder: of the cache.
        known: what the measurement depends on, for the key.
    """
    file = folder / "sensitivity" / f"{key_of(known)}.json"
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(found, list):
            return [[str(name) for name in part] for part in found]
    measured = measure_sensitivity(path, context)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(f".{uuid.uuid4().hex}")
        unfinished.write_text(json.dumps(measured), encoding="utf-8")
        unfinished.replace(file)
    return measured


def spared(groups: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return what may stay in floating point: nothing, the most sensitive group, the first two, four, ..."""
    counts = [0]
    while (step := max(1, counts[-1])) + counts[-1] < len(groups):
        counts.append(counts[-1] + step)
    return tuple(tuple(name for part in groups[:count] for name in part) for count in counts)


_LAYERS: Final = frozenset({"Conv", "Gemm", "MatMul"})


def _loss(path: Path, exclude: tuple[str, ...], context: "Context") -> float:
    def quantized() -> Path:
        return StaticInt8(exclude=exclude).apply(Model(path=path), context).model.onnx_path()

    made = run_foreign(quantized, lambda reason: CompressorError(f"It cannot be quantized ({reason})."))
    original, variant = Session(path, SessionSettings()), Session(made, SessionSettings())
    layout = fit(context.calibration, original.signature)
    error = energy = 0.0
    for feed in layout.feeds(context.calibration, layout.rows or _ROWS):
        expected, found = original.run(feed), variant.run(feed)
        for name, value in expected.items():
            if value.dtype.kind == "f":
                error += float(np.square(value.astype(np.float64) - found[name]).sum())
                energy += float(np.square(value.astype(np.float64)).sum())
    return error / energy if energy > 0 else 0.0
