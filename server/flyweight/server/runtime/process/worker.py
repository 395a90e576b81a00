"""A worker: the process that holds one variant's session. The server starts it, and it ends with the server.

The main thread builds the session, reports, and then waits for the server to close the control socket. One
thread for each lane takes a run, runs it and answers; between two runs it waits in the kernel.

It imports as little as it can: every module is paid for once in each worker.
"""

import gc
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final, NoReturn

import numpy as np

from flyweight.server.errors import DeadlineExceeded, InvalidRequest, LoadFailed, RunFailed, ServerError
from flyweight.server.runtime.kills import be_taken_first
from flyweight.server.runtime.memory import read_held, reset_peak, trim_heap
from flyweight.server.runtime.parent import end_with_parent
from flyweight.server.runtime.priming import prime
from flyweight.server.runtime.priority import do_aside
from flyweight.server.runtime.process.faults import LaneClosed, TooLarge
from flyweight.server.runtime.process.lane import ANSWER, FAILURE, RUN_ASIDE, Lane, Message
from flyweight.server.runtime.process.room import Room
from flyweight.server.runtime.process.startup import Order, Report
from flyweight.server.runtime.session import Session, open_session

_DONE: Final = 0
_BROKEN: Final = 70
# The server says when a worker ends. A terminal's Ctrl-C and a service manager's SIGTERM go to every process,
# and the server still has requests to finish.
_IGNORED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(order_text: str) -> NoReturn:
    """Do what an order says until the server goes."""
    order = Order.decode(order_text)
    for ignored in _IGNORED:
        signal.signal(ignored, signal.SIG_IGN)
    end_with_parent(order.front_pid)
    be_taken_first()
    threading.excepthook = _end
    control = socket.socket(fileno=order.control)
    report, session = _load_aside(order) if order.settings.may_give_way else _load(order)
    if session is not None:
        room = Room(order.room, len(order.lanes))
        for number, handle in enumerate(order.lanes):
            lane = Lane(
                socket.socket(fileno=handle), room.towards_server(number), room.towards_worker(number)
            )
            threading.Thread(target=_serve, args=(lane, session), daemon=True).start()
        # What was made until now stays; a collection need not look at it again.
        gc.freeze()
    with suppress(OSError):
        control.sendall(report.encode())
        if session is not None:
            # Nothing ever comes: this ends when the server closes its end, or is no more.
            control.recv(1)
    # Nothing here has to be put in order, and a run that is in progress is not waited for.
    os._exit(_DONE)


def _load_aside(order: Order) -> tuple[Report, Session | None]:
    """Load while everybody else goes first."""
    loaded: list[tuple[Report, Session | None]] = []
    do_aside(lambda: loaded.append(_load(order)))
    return loaded[0]


def _load(order: Order) -> tuple[Report, Session | None]:
    """Build the session, and measure what it takes beyond an empty worker."""
    prime()
    trim_heap()
    before = read_held()
    is_peak_new = reset_peak()
    try:
        session = open_session(Path(order.model_file), order.settings, order.cores, is_coded=order.is_coded)
    except LoadFailed as failure:
        return Report(failure=str(failure)), None
    after = read_held()
    if before is None or after is None:
        return Report(signature=session.signature), session
    return (
        Report(
            signature=session.signature,
            base_pss_bytes=before.pss_bytes,
            load_pss_bytes=max(0, after.pss_bytes - before.pss_bytes),
            load_uss_bytes=max(0, after.uss_bytes - before.uss_bytes),
            loaded_anonymous_bytes=after.anonymous_bytes,
            load_peak_bytes=(
                max(0, after.peak_resident_bytes - before.resident_bytes) if is_peak_new else None
            ),
        ),
        session,
    )


def _serve(lane: Lane, session: Session) -> None:
    """Answer the runs of one lane until it is closed."""
    try:
        while True:
            message = lane.receive()
            if message.kind == RUN_ASIDE:
                do_aside(partial(_answer, lane, session, message))
            else:
                _answer(lane, session, message)
    except LaneClosed:
        return


def _answer(lane: Lane, session: Session, message: Message) -> None:
    try:
        _require_time(message.moment)
        feed = session.feed_of(message.arrays)
        began = monotonic()
        outputs = session.run(message.wanted, feed)
        seconds = monotonic() - began
        lane.send(ANSWER, message.number, seconds, outputs)
    except (DeadlineExceeded, InvalidRequest, RunFailed) as failure:
        _fail(lane, message, failure)
    except TooLarge as fault:
        _fail(lane, message, RunFailed(f"The outputs take {fault}; ask for fewer rows at a time."))
    except MemoryError:
        _fail(lane, message, RunFailed("There is not enough memory for the run; ask for fewer rows."))


def _require_time(deadline: float) -> None:
    """Raise for a run that nobody waits for any more; the clock is the server's too (CLOCK_MONOTONIC)."""
    if monotonic() >= deadline:
        raise DeadlineExceeded("The deadline passed before the request's turn came.")


def _fail(lane: Lane, message: Message, failure: ServerError) -> None:
    sentence = np.frombuffer(str(failure).encode(), np.uint8)
    lane.send(FAILURE, message.number, 0.0, {type(failure).__name__: sentence})


def _end(arguments: threading.ExceptHookArgs) -> None:
    """End the process: with one lane unserved, its callers would wait for ever. The server starts another."""
    traceback.print_exception(arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
    sys.stderr.flush()
    os._exit(_BROKEN)
