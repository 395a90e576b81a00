"""A job: one request's arrays on their way to the model and back."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from flyweight.protos.errors import FlyweightError
from flyweight.server.runtime.seam import Array

TOO_LATE: Final = "The deadline passed before it was the request's turn to run; it was not run."
GONE: Final = "The caller cancelled the request before it could run; it was not run."


class Done(NamedTuple):
    """What became of a job that was run. A tuple, for it is made anew for each request.

    Attributes:
        outputs: the request's own rows of every output that was wanted, by name.
        started_seconds: the moment its run began, on the scheduler's clock.
        run_seconds: how long the run took, all requests that shared it together.
        batch_rows: how many rows shared the run.
        batch_requests: how many requests did.
        leads_run: true for one of them, so that runs can be counted.
    """

    outputs: Mapping[str, Array]
    started_seconds: float
    run_seconds: float
    batch_rows: int
    batch_requests: int
    leads_run: bool = True


Outcome: TypeAlias = Done | FlyweightError


@dataclass(slots=True, eq=False)
class Job:
    """One request in a queue; it is settled exactly once, by whoever takes it out of the queue.

    Attributes:
        inputs: arrays by name, checked against the variant's signature.
        rows: the length of the batch axis; 1 for a model without one.
        outputs: the names that are wanted.
        arrived_seconds: when it was made, on the scheduler's clock.
        settle: takes what became of it; quick, raises nothing, may be called by any thread.
        is_active: whether the caller still waits.
        deadline_seconds: after which the caller no longer does; None for a patient one.
        priority: its level, 1 being the first to be served; 0 where there are no levels.
        timeout_seconds: how long it may wait, by its own word; None leaves that to the queue.
    """

    inputs: Mapping[str, Array]
    rows: int
    outputs: tuple[str, ...]
    arrived_seconds: float
    settle: Callable[[Outcome], None]
    is_active: Callable[[], bool] = lambda: True
    deadline_seconds: float | None = None
    priority: int = 0
    timeout_seconds: float | None = None
    _kind: Hashable = field(default=None, init=False, repr=False)

    def is_over(self, now: float) -> bool:
        """Tell whether the caller's deadline passed."""
        return self.deadline_seconds is not None and self.deadline_seconds <= now

    @property
    def kind(self) -> Hashable:
        """Return what two jobs must have in common to share a run: tensors alike but for their rows."""
        if self._kind is None:
            shapes = [(name, array.dtype, array.shape[1:]) for name, array in self.inputs.items()]
            self._kind = (frozenset(shapes), self.outputs)
        return self._kind

    def be_of(self, kind: Hashable) -> None:
        """Say what `kind` is, where that is known; None to look anew at tensors that have changed."""
        self._kind = kind
