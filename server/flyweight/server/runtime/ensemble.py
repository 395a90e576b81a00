"""A runtime of several models: each step's outputs feed the next, without leaving the server."""

import time
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Names
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol

from flyweight.server.errors import (
    InvalidRequest,
    NotReady,
    RunFailed,
    ServerError,
    UnknownModel,
    UnknownVariant,
)
from flyweight.server.repository.ensembles import EnsembleGraph, EnsembleStep
from flyweight.server.runtime.seam import (
    Answer,
    Array,
    MemoryReport,
    Runtime,
    RuntimeState,
    Signature,
    Usage,
)


class StepModel(Protocol):
    """What an ensemble needs of the variant that answers one of its steps."""

    @property
    def model(self) -> str:
        """Return the model's name."""
        ...

    @property
    def name(self) -> str:
        """Return the variant's own name."""
        ...

    @property
    def signature(self) -> Signature:
        """Return what its requests are checked against."""
        ...

    @property
    def runtime(self) -> Runtime:
        """Return what runs it."""
        ...


Lease = Callable[[str, str], AbstractContextManager[StepModel]]
"""Holds a model's variant, by the names of both, for a `with` block; an empty variant is the baseline."""


class StepRun(NamedTuple):
    """What a step cost the variant that answered it; `seconds` is all of it, with waiting and checking."""

    model: str
    variant: str
    rows: int
    seconds: float
    queue_seconds: float = 0.0
    run_seconds: float = 0.0
    error: ServerError | None = None


StepListener = Callable[[StepRun], None]
"""Is told of every step, from the thread that ran it; must be quick and raise nothing."""


class EnsembleRuntime:
    """Runs the steps of an ensemble one after the other, on whatever variants answer for them now.

    It has no session: each run leases all of its steps' variants before the first of them runs, so that one
    that is being replaced stays until the answer is there.
    """

    def __init__(
        self,
        name: str,
        graph: EnsembleGraph,
        lease: Lease,
        listener: StepListener,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._graph = graph
        self._lease = lease
        self._listener = listener
        self._monotonic = monotonic
        self._is_closed = False

    @property
    def signature(self) -> Signature:
        """Return what the ensemble takes and gives."""
        return self._graph.signature

    @property
    def memory(self) -> MemoryReport:
        """Return nothing: its steps' models take the memory."""
        return MemoryReport(file_bytes=0, load_pss_bytes=0)

    @property
    def is_elsewhere(self) -> bool:
        """Return True: a step may be."""
        return True

    @property
    def state(self) -> RuntimeState:
        """Return READY until it is closed; whether its steps answer is told by each request."""
        return RuntimeState.CLOSED if self._is_closed else RuntimeState.READY

    def usage(self) -> Usage:
        """Return nothing: its steps' models use what it uses."""
        return Usage(file_bytes=0)

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Names[str] | None = None,
        deadline_monotonic: float | None = None,
    ) -> Answer:
        """Run all steps; see `Runtime.run`.

        Raises:
            NotReady: the model of a step is not served now.
        """
        tensors = dict(inputs)
        queue_seconds = run_seconds = 0.0
        with ExitStack() as held:
            models = [self._hold(step, held) for step in self._graph.steps]
            for step, model in zip(self._graph.steps, models, strict=True):
                answer = self._run_step(step, model, tensors, deadline_monotonic)
                tensors.update({tensor: answer.outputs[name] for name, tensor in step.outputs})
                queue_seconds += answer.queue_seconds
                run_seconds += answer.run_seconds
        names = outputs or [spec.name for spec in self._graph.signature.outputs]
        return Answer({name: tensors[name] for name in names}, queue_seconds, run_seconds)

    def close(self) -> None:
        """Run no more; the steps' models are not the ensemble's."""
        self._is_closed = True

    def _hold(self, step: EnsembleStep, held: ExitStack) -> StepModel:
        try:
            return held.enter_context(self._lease(step.model, step.version))
        except (UnknownModel, UnknownVariant, NotReady) as error:
            raise NotReady(
                f"The ensemble {self._name!r} needs {step.model!r}, which is not served now: {error}"
            ) from error

    def _run_step(
        self, step: EnsembleStep, model: StepModel, tensors: Mapping[str, Array], deadline: float | None
    ) -> Answer:
        feed = {name: tensors[tensor] for name, tensor in step.inputs if tensor in tensors}
        where = f"In the step {step.model!r} of the ensemble {self._name!r}: "
        try:
            return self._told_run(model, feed, [name for name, _ in step.outputs], deadline)
        except InvalidRequest as error:
            raise InvalidRequest(f"{where}{error}") from error
        except RunFailed as error:
            raise RunFailed(f"{where}{error}") from error

    def _told_run(
        self, model: StepModel, feed: Mapping[str, Array], names: Names[str], deadline: float | None
    ) -> Answer:
        started, rows = self._monotonic(), 0
        try:
            rows = model.signature.check(feed, names)
            answer = model.runtime.run(feed, names, deadline)
        except ServerError as error:
            seconds = self._monotonic() - started
            self._listener(StepRun(model.model, model.name, rows, seconds, error=error))
            raise
        seconds = self._monotonic() - started
        self._listener(
            StepRun(model.model, model.name, rows, seconds, answer.queue_seconds, answer.run_seconds)
        )
        return answer
