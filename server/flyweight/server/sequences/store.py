"""The sequences of one variant: their states, and whose turn it is within each."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from flyweight.protos.tensors import Array
from flyweight.server.errors import InvalidRequest, QueueFull
from flyweight.server.sequences.controls import SequenceId
from flyweight.server.sequences.spec import SequenceSpec

# A sequence's requests run one after the other; who sends this many ahead does not wait for answers at all.
_MOST_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class SequenceStep:
    """What a request of a sequence brings to its run besides its own inputs.

    `inputs` are controls and states, batch axis included; `outputs` are to be asked of the run in addition,
    and given to `Ticket.complete`.
    """

    inputs: Mapping[str, Array]
    outputs: tuple[str, ...]


class _Place(Enum):
    WAITING = auto()
    RUNNING = auto()
    SETTLED = auto()


@dataclass(slots=True, eq=False)
class _Sequence:
    """One sequence. `is_open` says that it was not ended by what was admitted so far."""

    key: SequenceId
    state: dict[str, Array] = field(default_factory=dict[str, Array])
    queue: "deque[Ticket]" = field(default_factory=deque["Ticket"])
    is_open: bool = True
    used_seconds: float = 0.0


class Ticket:
    """One admitted request: settled exactly once, by `complete`, `fail` or `leave`. Thread-safe."""

    def __init__(
        self,
        owner: "Sequences",
        sequence: _Sequence,
        flags: tuple[bool, bool],
        when_turn: Callable[[SequenceStep], None],
    ) -> None:
        self._owner = owner
        self.sequence = sequence
        self.start, self.end = flags
        self.when_turn = when_turn
        self.place = _Place.WAITING

    def complete(self, outputs: Mapping[str, Array]) -> None:
        """Take the run's state outputs, and let the next request have its turn."""
        self._owner.settle(self, outputs)

    def fail(self) -> None:
        """Note that the run failed: the state stays as it was, and the next request has its turn."""
        self._owner.settle(self, None)

    def leave(self) -> bool:
        """Go before one's turn, cancelled or too late; tell whether it was still waiting.

        If not, the run is under way or over, and must be settled by `complete` or `fail`.
        """
        return self._owner.withdraw(self)


class Sequences:
    """The sequences of one variant, of which there is a bounded number; owns no thread.

    `when_turn` is called once for every ticket that does not leave: from `admit` when the sequence is free,
    else from whoever settles the request before it. It is never called under a lock, and should only hand
    the request on.
    """

    def __init__(
        self, spec: SequenceSpec, what: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Args: `what` is the variant as a sentence names it."""
        self.spec = spec
        self._what = what
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._local = threading.local()
        # Least recently used first.
        self._sequences: OrderedDict[SequenceId, _Sequence] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            self._forget_idle(self._monotonic())
            return len(self._sequences)

    def knows(self, sequence_id: SequenceId) -> bool:
        """Tell whether a request without the start flag would be taken."""
        with self._lock:
            self._forget_idle(self._monotonic())
            found = self._sequences.get(sequence_id)
            return found is not None and found.is_open

    def admit(
        self,
        sequence_id: SequenceId,
        *,
        start: bool,
        end: bool,
        rows: int,
        when_turn: Callable[[SequenceStep], None],
    ) -> Ticket:
        """Take one request; a start of a sequence that is under way begins it anew, as in Triton.

        Args:
            sequence_id: a number that is not 0, or a text that is not empty.
            start: whether it is the first of its sequence.
            end: whether it is the last.
            rows: how many it holds; sequences go one row at a time.
            when_turn: is called when every earlier request of the sequence is settled, perhaps at once.

        Raises:
            InvalidRequest: the id is missing or of another type than the model's, the sequence is not under
                way, or there is more than one row.
            QueueFull: there are too many sequences, or too many requests wait in this one.
        """
        if not sequence_id:
            raise InvalidRequest(
                f"{self._what} keeps state; send a sequence_id that is not 0 or empty, and sequence_start "
                "with the first request."
            )
        if rows > 1:
            raise InvalidRequest(f"{self._what} keeps state and takes one row a request, not {rows}.")
        # An id that the model cannot be told is refused now, and not when the turn has come.
        for control in self.spec.controls:
            control.tell(sequence_id, start=start, end=end)
        with self._lock:
            sequence = self._find(sequence_id, start=start)
            ticket = Ticket(self, sequence, (start, end), when_turn)
            sequence.queue.append(ticket)
            sequence.is_open = not end
            is_first = sequence.queue[0] is ticket
            step = self._begin(ticket) if is_first else None
        if step is not None:
            when_turn(step)
        return ticket

    def settle(self, ticket: Ticket, outputs: Mapping[str, Array] | None) -> None:
        """Take the end of a run; see `Ticket`."""
        with self._lock:
            if ticket.place is not _Place.RUNNING:
                return
            ticket.place = _Place.SETTLED
            sequence = ticket.sequence
            if outputs is not None:
                for state in self.spec.states:
                    # A copy: what came is a view of the whole batch, which would stay in memory with it.
                    sequence.state[state.input_name] = outputs[state.output_name].copy()
            sequence.queue.popleft()
            following = self._next(sequence)
        if following is not None:
            self._hand_on(following)

    def _hand_on(self, following: "tuple[Ticket, SequenceStep]") -> None:
        """Call `when_turn`; one that runs its request on the spot and settles it does not nest."""
        pending: deque[tuple[Ticket, SequenceStep]] | None = getattr(self._local, "pending", None)
        if pending is not None:
            pending.append(following)
            return
        pending = self._local.pending = deque([following])
        try:
            while pending:
                ticket, step = pending.popleft()
                ticket.when_turn(step)
        finally:
            self._local.pending = None

    def withdraw(self, ticket: Ticket) -> bool:
        """Take a ticket that still waits out of its queue; see `Ticket.leave`."""
        with self._lock:
            if ticket.place is not _Place.WAITING:
                return False
            ticket.place = _Place.SETTLED
            queue = ticket.sequence.queue
            after = queue.index(ticket)
            queue.remove(ticket)
            # The one behind a start that is gone is the first of the new sequence, not the next of the old.
            if ticket.start and after < len(queue):
                queue[after].start = True
            ticket.sequence.is_open = not queue[-1].end
            return True

    def _find(self, sequence_id: SequenceId, *, start: bool) -> _Sequence:
        now = self._monotonic()
        self._forget_idle(now)
        found = self._sequences.get(sequence_id)
        if not start and (found is None or not found.is_open):
            raise InvalidRequest(
                f"{self._what} has no sequence {sequence_id!r} under way; the first request of a sequence "
                f"needs sequence_start, and one that is silent for {self.spec.idle_seconds:g} s is forgotten."
            )
        if found is None:
            if len(self._sequences) >= self.spec.most:
                raise QueueFull(
                    f"{self._what} keeps its {self.spec.most} sequences already; end some, or try later."
                )
            found = self._sequences[sequence_id] = _Sequence(sequence_id)
        if len(found.queue) >= _MOST_WAITING:
            raise QueueFull(
                f"{_MOST_WAITING} requests of the sequence {sequence_id!r} wait already; wait for answers."
            )
        found.used_seconds = now
        self._sequences.move_to_end(sequence_id)
        return found

    def _begin(self, ticket: Ticket) -> SequenceStep:
        """Return what the ticket whose turn has come brings to its run; the lock is held."""
        sequence = ticket.sequence
        ticket.place = _Place.RUNNING
        if ticket.start:
            sequence.state = {state.input_name: state.initial for state in self.spec.states}
        controls = {
            control.name: control.tell(sequence.key, start=ticket.start, end=ticket.end)
            for control in self.spec.controls
        }
        return SequenceStep({**controls, **sequence.state}, self.spec.state_outputs)

    def _next(self, sequence: _Sequence) -> tuple[Ticket, SequenceStep] | None:
        """Return whose turn it is now; a sequence that was ended and has nobody is forgotten."""
        sequence.used_seconds = self._monotonic()
        if sequence.queue:
            return sequence.queue[0], self._begin(sequence.queue[0])
        if self._sequences.get(sequence.key) is sequence:
            self._sequences.move_to_end(sequence.key)
            if not sequence.is_open:
                del self._sequences[sequence.key]
        return None

    def _forget_idle(self, now: float) -> None:
        """Forget what nobody used for too long; what has requests under way is not idle."""
        stale: list[SequenceId] = []
        for key, sequence in self._sequences.items():
            if now - sequence.used_seconds < self.spec.idle_seconds:
                # They are in order of use, and the clock does not go back.
                break
            if not sequence.queue:
                stale.append(key)
        for key in stale:
            del self._sequences[key]
