"""A worker process as the server sees it: started, spoken to, ended."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Final, NamedTuple

import numpy as np

from flyweight.server.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LoadFailed,
    RunFailed,
    ServerError,
    WorkerDied,
)
from flyweight.server.runtime.model_file import ModelFile
from flyweight.server.runtime.priority import gave_way
from flyweight.server.runtime.process.entry import GIVE_WAY
from flyweight.server.runtime.process.faults import LaneClosed, PacketFault, TooLarge
from flyweight.server.runtime.process.lane import ANSWER, FAILURE, RUN, RUN_ASIDE, Lane, Message
from flyweight.server.runtime.process.room import Room
from flyweight.server.runtime.process.startup import LARGEST_REPORT_BYTES, Order, Report
from flyweight.server.runtime.seam import Array, SessionSettings

# -P: the folder the server was started in holds no module of ours. Not -m, which imports more than it runs.
_COMMAND: Final = (
    "-P",
    "-c",
    "import sys; from flyweight.server.runtime.process.entry import main; main(sys.argv[1:])",
)
# Threads of numpy's linear algebra, which a worker never uses.
_ENVIRONMENT: Final = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# One heap, as `keep_one_heap` makes it elsewhere: here a thread may come before a call of ours could.
_ONE_HEAP: Final = {"MALLOC_ARENA_MAX": "1"}
_STANDARD_ERROR: Final = 2
_FAILURES: Final[Mapping[str, type[ServerError]]] = {
    kind.__name__: kind for kind in (DeadlineExceeded, InvalidRequest, RunFailed)
}


class Task(NamedTuple):
    """What workers of one variant are started for.

    `cores` is for the session, `lanes` are as many as runs may go on at once, and `name` is the variant's in
    sentences for callers.
    """

    file: ModelFile
    settings: SessionSettings
    cores: int
    lanes: int
    name: str

    def without_giving_way(self) -> "Task":
        """Return it for workers that are needed now."""
        return self._replace(settings=replace(self.settings, gives_way=False))

    @property
    def model(self) -> str:
        """Return the model's name: that of the folder of its variants."""
        return self.file.path.parent.parent.name


class Child:
    """A worker process. `exchange` and `kill` are for any thread, all else for the supervisor's.

    That thread must outlive the worker: the kernel ends a process with the thread that started it
    (PR_SET_PDEATHSIG, prctl(2)).

    Raises:
        LoadFailed: no process could be started; nothing is left behind.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._lock = threading.Lock()
        self._idle: list[Lane] = []
        self._busy = 0
        self._numbers = 0
        self._is_over = False
        self.was_killed_here = False
        self._received = b""
        try:
            self._start(task)
        except OSError as error:
            raise LoadFailed(
                f"{task.file.path} cannot be loaded: no worker process could be started for it "
                f"({error.strerror}); raise the limit that was reached, or serve fewer variants."
            ) from error

    def _start(self, task: Task) -> None:
        with ExitStack() as theirs, ExitStack() as ours:
            self._control, control = _pair(socket.SOCK_STREAM, ours, theirs)
            pairs = [_pair(socket.SOCK_SEQPACKET, ours, theirs) for _ in range(task.lanes)]
            self._room = Room.create(task.lanes)
            ours.callback(self._room.close)
            handles = tuple(end.fileno() for _, end in pairs)
            order = Order(
                front_pid=os.getpid(),
                control=control.fileno(),
                lanes=handles,
                room=self._room.handle,
                model_file=str(task.file.path),
                is_coded=task.file.is_coded,
                cores=task.cores,
                settings=task.settings,
            )
            manners = (GIVE_WAY,) if task.settings.may_give_way else ()
            # The command is ours: the order is data.
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, *_COMMAND, order.encode(), *manners],
                stdin=subprocess.DEVNULL,
                stdout=_STANDARD_ERROR,
                env=_ONE_HEAP | os.environ | _ENVIRONMENT,
                pass_fds=(control.fileno(), *handles, self._room.handle),
                start_new_session=True,
            )
            ours.callback(self._destroy)
            self.pidfd = os.pidfd_open(self._process.pid)
            ours.pop_all()
        self._control.setblocking(False)  # noqa: FBT003 -- the standard library's own signature
        for number, (end, _) in enumerate(pairs):
            self._idle.append(Lane(end, self._room.towards_worker(number), self._room.towards_server(number)))

    def _destroy(self) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._process.pid

    @property
    def control(self) -> int:
        """Return the descriptor that is readable when the report comes."""
        return self._control.fileno()

    @property
    def progress(self) -> tuple[int, int]:
        """Return how many runs are in progress, and how many were begun."""
        return self._busy, self._numbers

    def exchange(
        self, inputs: Mapping[str, Array], wanted: tuple[str, ...], deadline: float
    ) -> tuple[dict[str, Array], float]:
        """Have the worker run the model once; return the outputs and the seconds it ran.

        Raises:
            WorkerDied: it died, or answered what it never should and is killed for it.
            InvalidRequest, DeadlineExceeded, RunFailed: as `Runtime.run`.
        """
        lane, number = self._take()
        try:
            kind = RUN_ASIDE if gave_way() else RUN
            sent = lane.send(kind, number, deadline, inputs, wanted)
            message = lane.receive()
            # An answer that nobody waited for any more; it can only be of this lane's last run.
            while message.number < number:
                message = lane.receive()
            result = result_of(message, number, wanted)
            lane.shrink(sent, message.mapped_bytes)
        except TooLarge as fault:
            raise InvalidRequest(f"The inputs take {fault}; send fewer rows at a time.") from fault
        except LaneClosed as fault:
            raise self._death() from fault
        except PacketFault as fault:
            self.kill()
            raise self._death() from fault
        finally:
            self._give_back(lane)
        return result, message.moment

    def _death(self) -> WorkerDied:
        return WorkerDied(
            f"The worker process of {self._task.name} died during the run and is started again; "
            "ask again in a moment.",
            self._task.model,
        )

    def _take(self) -> tuple[Lane, int]:
        with self._lock:
            if self._is_over:
                raise self._death()
            # There are as many lanes as turns, and who comes here holds a turn.
            lane = self._idle.pop()
            self._busy += 1
            self._numbers += 1
            return lane, self._numbers

    def _give_back(self, lane: Lane) -> None:
        with self._lock:
            self._busy -= 1
            self._idle.append(lane)
            if self._is_over:
                self._close_idle()

    def read_report(self) -> Report | None:
        """Return the worker's report once it is there whole.

        Raises:
            PacketFault: what came is no report.
        """
        try:
            self._received += self._control.recv(1 << 16)
        except (BlockingIOError, ConnectionResetError):
            return None
        if len(self._received) > LARGEST_REPORT_BYTES:
            raise PacketFault("a worker's report does not end")
        return Report.decode(self._received) if self._received.endswith(b"\n") else None

    def ask_to_end(self) -> None:
        """Close the control socket, which a worker ends at."""
        self._control.close()

    def kill(self) -> None:
        """End the process whatever it does; from any thread."""
        self.was_killed_here = True
        with self._lock, suppress(ProcessLookupError):
            # By its descriptor, which is closed when it was reaped: its number may be another's then.
            if not self._is_over:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def reap(self) -> str | None:
        """Return how the process ended, with everything of it closed; None while it runs."""
        status = self._process.poll()
        if status is None:
            return None
        self._control.close()
        with self._lock:
            self._is_over = True
            os.close(self.pidfd)
            self._close_idle()
        return ending_of(status)

    def _close_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()
        if self._busy == 0:
            self._room.close()


def result_of(message: Message, number: int, wanted: tuple[str, ...]) -> dict[str, Array]:
    """Return the outputs that a worker answers the run `number` with.

    Raises:
        PacketFault: it answers another run, or with other outputs than are wanted, or not at all.
        InvalidRequest, DeadlineExceeded, RunFailed: as the worker says.
    """
    arrays = message.arrays
    if message.number == number and message.kind == ANSWER and tuple(arrays) == wanted:
        # The lane's next run overwrites what numbers are read from.
        return {name: array.copy() for name, array in arrays.items()}
    if message.number == number and message.kind == FAILURE and len(arrays) == 1:
        [(name, sentence)] = arrays.items()
        kind = _FAILURES.get(name)
        # Of text the array holds objects, whose bytes are addresses.
        if kind is not None and sentence.dtype == np.uint8:
            raise kind(sentence.tobytes().decode("utf-8", "replace"))
    raise PacketFault(f"a packet of the kind {message.kind} and number {message.number} answers {number}")


def ending_of(status: int) -> str:
    """Return how a process ended, by `subprocess.Popen.returncode`."""
    if status >= 0:
        return f"ended with code {status}"
    # Real-time signals but for the first and the last have no name (signal(7)).
    names = {known.value: known.name for known in signal.Signals}
    return f"was killed by {names.get(-status, f'signal {-status}')}"


def _pair(kind: socket.SocketKind, ours: ExitStack, theirs: ExitStack) -> tuple[socket.socket, socket.socket]:
    our_end, their_end = socket.socketpair(socket.AF_UNIX, kind)
    ours.callback(our_end.close)
    theirs.callback(their_end.close)
    return our_end, their_end
