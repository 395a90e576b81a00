"""The seam between those who route requests and those who run models.

Nothing outside this folder knows onnxruntime. A runtime may hold its session in this process (`inline`) or
elsewhere; whoever calls it cannot tell. `fake` is a runtime without a model, for tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from flyweight.server.runtime.signature import Array, Signature, TensorSpec

__all__ = [
    "Answer",
    "Array",
    "MemoryReport",
    "Runtime",
    "RuntimeFactory",
    "SessionSettings",
    "Signature",
    "TensorSpec",
]


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session is set up: the manifest's words, unless the operator says otherwise.

    `intra_op_threads` of 0 leaves the number to the runtime.
    """

    intra_op_threads: int = 0
    config_entries: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What a variant takes: bytes on disk, and by how much the server's PSS grew while it was loaded.

    The growth is of the whole process, so whatever else happened meanwhile is in it; it is never negative.
    """

    file_bytes: int
    load_pss_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The outputs of one run by name, and how long it waited for its turn and ran."""

    outputs: Mapping[str, Array]
    queue_seconds: float
    run_seconds: float


class Runtime(Protocol):
    """A loaded model. Any number of threads may call `run` at once; `close` comes once, after the last."""

    @property
    def signature(self) -> Signature:
        """Return the session's own inputs and outputs; `max_batch_rows` is 0, for it has no opinion."""
        ...

    @property
    def memory(self) -> MemoryReport:
        """Return what the model takes."""
        ...

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        deadline_monotonic: float | None = None,
    ) -> Answer:
        """Run the model once on arrays that fit the signature.

        Args:
            inputs: arrays by input name, batch axis included; BYTES as object arrays of bytes.
            outputs: the outputs that are wanted; None or empty means all.
            deadline_monotonic: a moment of `time.monotonic()` after which no turn is taken; None waits on.

        Raises:
            InvalidRequest: the model does not accept the values.
            DeadlineExceeded: the deadline passed before the run began.
            RunFailed: the model failed on the values.
        """
        ...

    def close(self) -> None:
        """Give back what the model holds; nobody runs it any more."""
        ...


class RuntimeFactory(Protocol):
    """Makes runtimes. The manager's worker is its only caller, one load at a time."""

    def load(self, model_file: Path, settings: SessionSettings) -> Runtime:
        """Build the session for a model file; external data must lie in the same folder.

        Raises:
            LoadFailed: the file is not a model that this runtime can serve; nothing is left behind.
        """
        ...
