"""onnxruntime sessions, set up in one way wherever a variant is run: as its manifest will say."""

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.signature import Signature, tensor_spec

Array = NDArray[Any]

# A thread that spins while it waits takes the processor from the other variants of the same server.
_CONFIG: Final = MappingProxyType({"session.intra_op.allow_spinning": "0"})
_FATAL: Final = 4
_WARNING: Final = 2


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session is set up.

    Attributes:
        threads: inside an operator.
        config: further entries by onnxruntime's key.
        optimise: whether onnxruntime may rewrite the graph; always so when something is measured.
    """

    threads: int = 1
    config: Mapping[str, str] = field(default_factory=lambda: _CONFIG)
    optimise: bool = True


class Session:
    """A loaded model: arrays in, arrays out.

    Runs may come from several threads; each is bounded by the model alone.
    """

    def __init__(self, path: Path, settings: SessionSettings) -> None:
        """Load the model at `path`.

        Raises:
            ModelError: onnxruntime cannot load it, or an input or output is not a tensor.
        """
        self.path = path
        self._session = run_foreign(
            lambda: ort.InferenceSession(
                os.fspath(path), session_options(settings), providers=["CPUExecutionProvider"]
            ),
            lambda reason: ModelError(f"onnxruntime cannot load {path} ({reason})."),
        )
        self.signature = Signature(
            tuple(tensor_spec(node.name, node.type, node.shape) for node in self._session.get_inputs()),
            tuple(tensor_spec(node.name, node.type, node.shape) for node in self._session.get_outputs()),
        )
        self._outputs = [spec.name for spec in self.signature.outputs]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs by name.

        Raises:
            ModelError: the model fails on this input.
        """
        values = run_foreign(
            lambda: self._session.run(self._outputs, dict(feed)),
            lambda reason: ModelError(f"The model {self.path} cannot run on this input ({reason})."),
        )
        return dict(zip(self._outputs, map(np.asarray, values), strict=True))

    def runner(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """Return a function that runs `feed` once with as little around it as possible, for timing."""
        run, outputs, inputs = self._session.run, self._outputs, dict(feed)
        return lambda: run(outputs, inputs)


def session_options(settings: SessionSettings) -> ort.SessionOptions:
    """Return onnxruntime's options for `settings`."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL
    if not settings.optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in settings.config.items():
        options.add_session_config_entry(key, value)
    return options


@contextlib.contextmanager
def quiet_tools() -> Iterator[None]:
    """Keep onnxruntime's tools from advising on the user's terminal; what matters they raise.

    They log through functions of the module logging, which set up a handler for good on their first use.
    """
    root, silent = logging.getLogger(), logging.NullHandler()
    root.addHandler(silent)
    ort.set_default_logger_severity(_FATAL)
    try:
        with quiet():
            yield
    finally:
        ort.set_default_logger_severity(_WARNING)
        root.removeHandler(silent)
