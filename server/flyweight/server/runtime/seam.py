"""The seam between those who route requests and those who run models.

Nothing outside this folder knows onnxruntime. A runtime may hold its session in this process (`inline`) or
elsewhere; whoever calls it cannot tell. `fake` is a runtime without a model, for tests.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from flyweight.server.runtime.session_entries import THREAD_WORDS
from flyweight.server.runtime.signature import Array, Signature, TensorSpec
from flyweight.server.runtime.usage import Usage

__all__ = [
    "Answer",
    "Array",
    "MemoryReport",
    "Runtime",
    "RuntimeFactory",
    "RuntimeState",
    "SessionSettings",
    "Signature",
    "TensorSpec",
    "Usage",
]


class RuntimeState(Enum):
    """Whether a runtime answers."""

    READY = "ready"
    # What held the session died, and is being started again; meanwhile every run raises NotReady.
    DOWN = "down"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """How a session is set up: the manifest's words, unless the operator says otherwise.

    `intra_op_threads` of 0 leaves the number to the runtime. A session that `gives_way` is built while
    everything else goes first, and by a thread that may keep a lower priority.
    """

    intra_op_threads: int = 0
    config_entries: Mapping[str, str] = field(default_factory=dict[str, str])
    gives_way: bool = False

    @property
    def may_give_way(self) -> bool:
        """Return whether it gives way and can: threads of the session's own would keep a lower priority."""
        return self.gives_way and self.intra_op_threads <= 1 and not self.config_entries.keys() & THREAD_WORDS


@dataclass(frozen=True, slots=True)
class MemoryReport:
    """What a variant takes: bytes on disk, and by how much the PSS of its process grew while it was loaded.

    The growth is of the whole process that holds the session, so whatever else it did meanwhile is in it; it
    is never negative, and None where another load is known to be in it.
    """

    file_bytes: int
    load_pss_bytes: int | None


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
        """Return what the model took when it was loaded."""
        ...

    @property
    def is_elsewhere(self) -> bool:
        """Return whether runs take another process's processor time, so that their caller only waits."""
        ...

    @property
    def state(self) -> RuntimeState:
        """Return whether it answers now; costs nothing."""
        ...

    def usage(self) -> Usage:
        """Return what the model uses now. Reads files of the kernel: for scrapes, not for requests."""
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
            NotReady: what holds the session is being started again.
            WorkerDied: it died during the run (a NotReady).
            RunFailed: the model failed on the values.
        """
        ...

    def close(self) -> None:
        """Give back what the model holds; nobody runs it any more."""
        ...


class RuntimeFactory(Protocol):
    """Makes runtimes; any number of threads may load at once."""

    def load(self, model_file: Path, settings: SessionSettings) -> Runtime:
        """Build the session for a model file; external data must lie in the same folder.

        Raises:
            LoadFailed: the file is not a model that this runtime can serve; nothing is left behind.
        """
        ...
