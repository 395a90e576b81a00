"""Where a run's time goes: onnxruntime's own profile of the graph that it made of a model."""

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.sessions import SessionSettings, quiet_tools, session_options

Array = NDArray[Any]

# The first runs plan memory and fill caches; a median of thirty is steady where a run takes microseconds.
_WARM_UP_RUNS: Final = 3
_MOST_RUNS: Final = 30
# What a profile may take: a slow model's time is large and needs fewer runs to be told apart.
_SECONDS: Final = 2.0
_KERNEL: Final = "_kernel_time"


@dataclass(frozen=True, slots=True)
class Kernel:
    """One node of the optimised graph, as it ran.

    Attributes:
        node: its name.
        operator: its type.
        seconds: median over runs.
        input_types: of its inputs, such as `float` and `uint8`.
        shape: of its first output; empty when the profile does not tell.
    """

    node: str
    operator: str
    seconds: float
    input_types: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Profile:
    """A run of a model, in onnxruntime's terms.

    Attributes:
        graph: what onnxruntime optimised the model into; weights may be missing.
        kernels: its nodes, in the order they ran.
        run_seconds: median of whole runs without the profiler.
    """

    graph: onnx.ModelProto
    kernels: tuple[Kernel, ...]
    run_seconds: float

    @property
    def kernel_seconds(self) -> float:
        """Time in kernels alone; what a run takes beyond it goes to passing from node to node."""
        return sum(kernel.seconds for kernel in self.kernels)


def profile(path: Path, feed: Mapping[str, Array], settings: SessionSettings) -> Profile:
    """Run a model under onnxruntime's profiler, optimised as it is when it is served.

    Raises:
        ModelError: it cannot be loaded or run, or what onnxruntime made of it not be written.
    """
    with tempfile.TemporaryDirectory(prefix="flyweight-profile-") as folder, quiet_tools():
        return run_foreign(
            lambda: _profile(path, dict(feed), settings, Path(folder)),
            lambda reason: ModelError(f"The model could not be profiled ({reason})."),
        )


def _profile(path: Path, feed: dict[str, Array], settings: SessionSettings, folder: Path) -> Profile:
    plain = ort.InferenceSession(str(path), session_options(settings), providers=["CPUExecutionProvider"])
    times = _times(plain, feed)
    options = session_options(settings)
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _ in range(_WARM_UP_RUNS + len(times)):
        session.run(None, feed)
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    graph = load_graph(folder / "optimised.onnx", weights=False)
    return Profile(graph, _kernels(events), float(np.median(times)))


def _times(session: ort.InferenceSession, feed: dict[str, Array]) -> list[float]:
    for _ in range(_WARM_UP_RUNS):
        session.run(None, feed)
    times: list[float] = []
    while len(times) < _MOST_RUNS and (len(times) < _WARM_UP_RUNS or sum(times) < _SECONDS / 2):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return times


def _kernels(events: list[dict[str, Any]]) -> tuple[Kernel, ...]:
    """Return one kernel for each node, in the order of first runs."""
    seen: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        if event.get("cat") == "Node" and str(event.get("name", "")).endswith(_KERNEL):
            key = f"{event['args'].get('node_index')} {event['name']}"
            seen.setdefault(key, []).append(event)
    return tuple(_kernel(runs) for runs in seen.values())


def _kernel(runs: list[dict[str, Any]]) -> Kernel:
    first = runs[0]["args"]
    steady = runs[_WARM_UP_RUNS:] or runs
    inputs = [next(iter(entry), "") for entry in first.get("input_type_shape", []) if entry]
    outputs = [entry for entry in first.get("output_type_shape", []) if entry]
    shape = next(iter(outputs[0].values())) if outputs else []
    return Kernel(
        node=str(runs[0]["name"]).removesuffix(_KERNEL),
        operator=str(first.get("op_name", "")),
        seconds=float(np.median([run["dur"] for run in steady])) * 1e-6,
        input_types=tuple(inputs),
        shape=tuple(int(length) for length in shape),
    )
