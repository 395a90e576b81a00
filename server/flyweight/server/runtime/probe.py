"""The process that loads one variant and nothing else, and tells what it grew by.

`python -P -m flyweight.server.runtime.probe` reads one JSON line from standard input (parent, model, threads,
entries, cores) and prints one with the fields of Growth. It runs when no other process wants the processor,
and ends with the process that started it.
"""

import ctypes
import json
import os
import signal
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final

from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.golden import warm_up
from flyweight.server.runtime.growth import GrowthMeter
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.seam import SessionSettings

_PR_SET_PDEATHSIG: Final = 1
_FAILED: Final = 1


def main() -> int:
    """Load, run once with zeros of the smallest shape, print."""
    order = json.loads(sys.stdin.readline())
    end_with_parent(int(order["parent"]))
    yield_to_everybody()
    settings = SessionSettings(order["threads"], order["entries"])
    meter = GrowthMeter(owns_process=True)
    try:
        runtime = InlineFactory(order["cores"]).load(Path(order["model"]), settings)
    except LoadFailed as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    meter.read()
    # A model may rightly refuse zeros; then the figures are of loading alone.
    warm_up(runtime, runtime.signature)
    sys.stdout.write(json.dumps(asdict(meter.read())) + "\n")
    return 0


def end_with_parent(parent: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (prctl(2), PR_SET_PDEATHSIG)."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before that was asked for.
    if os.getppid() != parent:
        sys.exit(_FAILED)


def yield_to_everybody() -> None:
    """Take the processor only when it is idle (sched(7), SCHED_IDLE), or be as nice as can be."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        os.nice(19)


if __name__ == "__main__":
    sys.exit(main())
