"""The process that loads one variant and nothing else, and tells what it grew by.

`python -P -m flyweight.server.runtime.probe` reads one JSON line from standard input (parent, model, threads,
entries, cores) and prints one with the fields of Growth. It runs when no other process wants the processor,
and ends with the process that started it.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

_FAILED: Final = 1


def main() -> int:
    """Load, run once with zeros of the smallest shape, print."""
    yield_to_everybody()
    # Only now: importing takes longer than a small model does to load, and a swap under load would feel it.
    from flyweight.server.errors import LoadFailed
    from flyweight.server.runtime.golden import warm_up
    from flyweight.server.runtime.growth import GrowthMeter
    from flyweight.server.runtime.inline import InlineFactory
    from flyweight.server.runtime.kills import be_taken_first
    from flyweight.server.runtime.parent import end_with_parent
    from flyweight.server.runtime.seam import SessionSettings

    order = json.loads(sys.stdin.readline())
    end_with_parent(int(order["parent"]))
    be_taken_first()
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


def yield_to_everybody() -> None:
    """Take the processor only when it is idle (sched(7), SCHED_IDLE), or be as nice as can be."""
    try:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    except (AttributeError, OSError):
        os.nice(19)


if __name__ == "__main__":
    sys.exit(main())
