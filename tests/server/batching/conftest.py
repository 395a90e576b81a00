"""Jobs and lanes without a server: a clock that tests move, runtimes that tests hold up."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from flyweight.server.batching.job import Done, Job, Outcome
from flyweight.server.batching.lane import Lane
from flyweight.server.batching.scheduler import Scheduler
from flyweight.server.repository.serving import Merging, ServingPolicy
from flyweight.server.runtime.fake import FakeRuntime
from flyweight.server.runtime.seam import Answer

PATIENCE_SECONDS = 30


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


class Ticket:
    """A job, and what became of it; being settled twice is an error that the test sees."""

    def __init__(self, inputs: Mapping[str, Any], rows: int, arrived: float, **more: Any) -> None:
        self.outcomes: list[Outcome] = []
        self.settled = threading.Event()
        self.on_settle: Callable[[], None] = lambda: None
        self.job = Job(inputs, rows, ("y",), arrived, self._settle, **more)

    def _settle(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        self.on_settle()
        self.settled.set()

    def outcome(self) -> Outcome:
        assert self.settled.wait(PATIENCE_SECONDS)
        (outcome,) = self.outcomes
        return outcome

    def answer(self) -> list[float]:
        """Return the first value of each row of the answer."""
        outcome = self.outcome()
        assert isinstance(outcome, Done), outcome
        return [float(row[0]) for row in outcome.outputs["y"]]


def make_ticket(rows: int = 1, *, arrived: float = 1000.0, value: float = 1.0, **more: Any) -> Ticket:
    width = more.pop("width", 4)
    return Ticket({"x": np.full((rows, width), value, np.float32)}, rows, arrived, **more)


@dataclass
class Trial(FakeRuntime):
    """A runtime that remembers the rows of each run, takes the time it is told, and waits where it is told.

    `seconds` is what it says a run took. A run that has the value `held` in it enters, and waits for `go_on`.
    """

    seconds: float = 0.0
    held: float = float("nan")
    fails: Callable[[Mapping[str, Any]], None] = lambda _: None
    rows_of: Callable[[int], int] = lambda rows: rows
    log: list[list[float]] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.entered, self.go_on = threading.Semaphore(0), threading.Semaphore(0)
        self._lock = threading.Lock()
        self.inside = self.most_inside = 0

    def run(
        self, inputs: Mapping[str, Any], outputs: Any = None, deadline_monotonic: float | None = None
    ) -> Answer:
        x = inputs["x"]
        with self._lock:
            self.log.append(x[:, 0].tolist())
            self.threads.append(threading.current_thread().name)
            self.inside += 1
            self.most_inside = max(self.most_inside, self.inside)
        try:
            if (x[:, 0] == self.held).any():
                self.entered.release()
                assert self.go_on.acquire(timeout=PATIENCE_SECONDS)
            self.fails(inputs)
            return Answer({"y": (2 * x)[: self.rows_of(len(x))]}, 0.0, self.seconds)
        finally:
            with self._lock:
                self.inside -= 1


@dataclass
class Floor:
    """A scheduler with a clock of the test's, and lanes on it."""

    scheduler: Scheduler
    clock: Clock

    def lane(self, runtime: Trial, name: str = "tiny/baseline", **policy: Any) -> Lane:
        return Lane(name, runtime, ServingPolicy(**{"merging": Merging.ASKED, "max_rows": 8, **policy}))

    def submit(self, lane: Lane, rows: int = 1, value: float = 1.0, **more: Any) -> Ticket:
        ticket = make_ticket(rows, arrived=self.clock(), value=value, **more)
        self.scheduler.submit(lane, ticket.job)
        return ticket

    def run(self, lane: Lane, **more: Any) -> Ticket:
        """Submit a request, and begin what may begin."""
        ticket = self.submit(lane, **more)
        self.scheduler.advance()
        return ticket

    def rest(self, *tickets: Ticket) -> None:
        """Wait until requests are settled; nobody else is to be left."""
        for ticket in tickets:
            ticket.outcome()
        assert self.scheduler.waiting_count == 0

    def hold_up(self, lane: Lane, runtime: Trial) -> Ticket:
        """Have a run under way that ends when the runtime may go on."""
        runtime.held = -1.0
        ticket = self.submit(lane, value=-1.0)
        self.scheduler.advance()
        assert runtime.entered.acquire(timeout=PATIENCE_SECONDS)
        return ticket


@pytest.fixture
def floor_of() -> Iterator[Callable[[int], Floor]]:
    floors: list[Floor] = []

    def make(slots: int) -> Floor:
        clock = Clock()
        floors.append(Floor(Scheduler(slots, clock), clock))
        return floors[-1]

    yield make
    for floor in floors:
        floor.scheduler.stop()


@pytest.fixture
def floor(floor_of: Callable[[int], Floor]) -> Floor:
    return floor_of(1)


@pytest.fixture
def trial() -> Callable[..., Trial]:
    return Trial


@pytest.fixture
def ticket() -> Callable[..., Ticket]:
    return make_ticket


@pytest.fixture
def poll() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that no event tells of."""

    def wait(condition: Callable[[], bool]) -> None:
        pause = threading.Event()
        for _ in range(100 * PATIENCE_SECONDS):
            if condition():
                return
            pause.wait(0.01)
        assert condition()

    return wait
