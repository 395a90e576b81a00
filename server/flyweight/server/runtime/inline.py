"""The inline runtime: an onnxruntime session in this process."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic

from flyweight.server.errors import RunFailed
from flyweight.server.runtime.cores import available_cores
from flyweight.server.runtime.growth import GrowthMeter, Spans
from flyweight.server.runtime.memory import trim_heap
from flyweight.server.runtime.model_file import inspect_model_file
from flyweight.server.runtime.priority import give_way
from flyweight.server.runtime.probing import Prober, Probing
from flyweight.server.runtime.seam import (
    Answer,
    Array,
    MemoryReport,
    RuntimeState,
    SessionSettings,
    Signature,
    Usage,
)
from flyweight.server.runtime.session import Session, open_session
from flyweight.server.runtime.slots import RunSlots


class InlineFactory:
    """Loads models into this process.

    Args:
        cores: how many threads a session has at most; None reads the cgroup.
        prober: measures what each variant takes; without one there is only what this process grew by.
        turns: how many runs of a variant go on at once; 0 for one on each core.
    """

    def __init__(self, cores: int | None = None, prober: Prober | None = None, turns: int = 0) -> None:
        self._cores = cores or available_cores()
        self._turns = turns or self._cores
        self._prober = prober
        self._spans = Spans()

    def load(self, model_file: Path, settings: SessionSettings) -> "InlineRuntime":
        """Build a session; see `open_session`.

        Raises:
            LoadFailed: the file is missing or not a model that can be served; nothing is left behind.
        """
        file = inspect_model_file(model_file)
        if settings.may_give_way:
            give_way()
        with self._spans.span() as span:
            meter = GrowthMeter()
            session = open_session(model_file, settings, self._cores, is_coded=file.is_coded)
            grown_bytes = meter.read().pss_bytes
        memory = MemoryReport(file.folder_bytes, None if span.is_shared else grown_bytes)
        probing = self._prober.ask(model_file, settings) if self._prober is not None else None
        return InlineRuntime(session, memory, RunSlots(self._turns), probing)


class InlineRuntime:
    """A session of this process, and its turns."""

    def __init__(
        self, session: Session, memory: MemoryReport, slots: RunSlots, probing: Probing | None = None
    ) -> None:
        self._session: Session | None = session
        self._probing = probing
        self._signature = session.signature
        self._memory = memory
        self._slots = slots
        self._all_outputs = [spec.name for spec in session.signature.outputs]

    @property
    def signature(self) -> Signature:
        """Return the session's inputs (initializers that may be overridden as optional ones) and outputs."""
        return self._signature

    @property
    def memory(self) -> MemoryReport:
        """Return the bytes of the model's folder, and the growth of this process's PSS while it loaded.

        Of loads that went on side by side the growth is not told: each would have the other's in it.
        """
        return self._memory

    @property
    def is_elsewhere(self) -> bool:
        """Return False: a run takes this process's processor time."""
        return False

    @property
    def state(self) -> RuntimeState:
        """Return READY until it is closed: what ends this process ends everything."""
        return RuntimeState.CLOSED if self._session is None else RuntimeState.READY

    def usage(self) -> Usage:
        """Return what is on disk, and what a process that loaded only this variant took, once that is known.

        Of this process's own memory and time no share is known to be the variant's.
        """
        growth = self._probing.growth if self._probing is not None else None
        if growth is None:
            return Usage(file_bytes=self._memory.file_bytes)
        return Usage(
            file_bytes=self._memory.file_bytes,
            load_peak_bytes=growth.peak_bytes,
            own_pss_bytes=growth.pss_bytes,
            own_uss_bytes=growth.uss_bytes,
        )

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        deadline_monotonic: float | None = None,
    ) -> Answer:
        """Run the session when a turn is free; see `Runtime.run`."""
        session = self._session
        if session is None:
            raise RunFailed("The model was unloaded.")
        feed = session.feed_of(inputs)
        names = list(outputs or self._all_outputs)
        with self._slots.hold(deadline_monotonic) as queue_seconds:
            began = monotonic()
            answers = session.run(names, feed)
            run_seconds = monotonic() - began
        return Answer(answers, queue_seconds, run_seconds)

    def close(self) -> None:
        """Drop the session and give its memory back to the kernel."""
        if self._probing is not None:
            self._probing.cancel()
        self._session = None
        trim_heap()
