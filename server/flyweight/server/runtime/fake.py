"""A runtime without a model: for tests of everything above the seam."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from flyweight.server.errors import LoadFailed, RunFailed
from flyweight.server.runtime.seam import (
    Answer,
    Array,
    MemoryReport,
    RuntimeState,
    SessionSettings,
    Signature,
    TensorSpec,
    Usage,
)

FAKE_SIGNATURE = Signature(
    inputs=(TensorSpec("x", "FP32", (-1, 4)),), outputs=(TensorSpec("y", "FP32", (-1, 4)),)
)
FAKE_MEMORY = MemoryReport(file_bytes=100, load_pss_bytes=1000)


class FakeRuntime:
    """Answers y = scale * x, or whatever `function` says; remembers what was asked of it.

    Raises:
        RunFailed: from `run` after `close`, which a correct caller never does.
    """

    def __init__(
        self,
        *,
        scale: float = 1.0,
        signature: Signature = FAKE_SIGNATURE,
        memory: MemoryReport = FAKE_MEMORY,
        function: Callable[[Mapping[str, Array]], Mapping[str, Array]] | None = None,
    ) -> None:
        self._function = function or (lambda inputs: {"y": (inputs["x"] * scale).astype(np.float32)})
        self._signature = signature
        self._memory = memory
        self.runs = 0
        self.closed = threading.Event()

    @property
    def signature(self) -> Signature:
        """Return the signature it was made with."""
        return self._signature

    @property
    def memory(self) -> MemoryReport:
        """Return the report it was made with."""
        return self._memory

    @property
    def is_elsewhere(self) -> bool:
        """Return False."""
        return False

    @property
    def state(self) -> RuntimeState:
        """Return READY until it is closed."""
        return RuntimeState.CLOSED if self.closed.is_set() else RuntimeState.READY

    def usage(self) -> Usage:
        """Return the bytes on disk that it was made with."""
        return Usage(file_bytes=self._memory.file_bytes)

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        deadline_monotonic: float | None = None,  # noqa: ARG002 -- a fake never waits
    ) -> Answer:
        """Compute the function, and keep the outputs that are wanted."""
        if self.closed.is_set():
            raise RunFailed("The fake runtime was run after it was closed.")
        self.runs += 1
        computed = self._function(inputs)
        kept = {name: computed[name] for name in outputs or computed}
        return Answer(outputs=kept, queue_seconds=0.0, run_seconds=0.0)

    def close(self) -> None:
        """Refuse any further run."""
        self.closed.set()


class FakeFactory:
    """Makes fake runtimes; a model file whose text starts with "broken" fails to load with that text.

    `make` decides what is made of a model file; `made` lists everything that was, newest last.
    """

    def __init__(self, make: Callable[[Path], FakeRuntime] | None = None) -> None:
        self._make = make or (lambda _: FakeRuntime())
        self.made: list[FakeRuntime] = []
        self.settings: list[SessionSettings] = []

    def load(self, model_file: Path, settings: SessionSettings) -> FakeRuntime:
        """Make a runtime for a model file.

        Raises:
            LoadFailed: the file is missing, or says that it is broken.
        """
        try:
            content = model_file.read_bytes()
        except OSError as error:
            raise LoadFailed(f"{model_file} cannot be read ({error.strerror}).") from error
        if content.startswith(b"broken"):
            raise LoadFailed(f"{model_file} is {content.decode()}.")
        runtime = self._make(model_file)
        self.made.append(runtime)
        self.settings.append(settings)
        return runtime
