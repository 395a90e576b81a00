"""Energy for one inference: an estimate, from processor time or from the counter of the package."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_COUNTER: Final = Path("/sys/class/powercap/intel-rapl:0")
# What one virtual processor of a public cloud draws when it is fully used, as the Cloud Carbon Footprint
# project averages over the machines of AWS (methodology, "Compute": 0.74 W idle, 3.5 W at full use). Others
# differ by a factor of two; ratios between variants on one machine do not depend on it.
WATTS_OF_A_BUSY_PROCESSOR: Final = 3.5
_FEWEST_RUNS: Final = 5
_MOST_RUNS: Final = 20_000

Run = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Energy:
    """What one run takes.

    Attributes:
        joules: for one run at the smallest batch.
        cpu_seconds: processor time of one run, over all threads.
        method: how joules were found.
    """

    joules: float
    cpu_seconds: float
    method: str


def estimate_energy(
    run: Run,
    budget_seconds: float,
    counter: Path = _COUNTER,
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
) -> Energy:
    """Run for about `budget_seconds` and at least five times, and estimate the energy of one run.

    Without a readable counter: joules = processor seconds x 3.5 W. With the RAPL counter of the processor's
    package (Intel SDM volume 3B, section 16.10; microjoules in /sys/class/powercap): what the package drew,
    other programs and idling included.

    Args:
        run: one inference.
        budget_seconds: of running.
        counter: the folder of the package's counter.
        clock: of the wall.
        cpu_clock: processor time of this process.
    """
    run()
    before, begun, cpu_begun = _microjoules(counter), clock(), cpu_clock()
    runs = 0
    while runs < _FEWEST_RUNS or (runs < _MOST_RUNS and clock() - begun < budget_seconds):
        run()
        runs += 1
    cpu_seconds = max(0.0, cpu_clock() - cpu_begun) / runs
    after = _microjoules(counter)
    if before is not None and after is not None and after > before:
        return Energy((after - before) * 1e-6 / runs, cpu_seconds, "RAPL counter of the processor package")
    method = f"processor seconds x {WATTS_OF_A_BUSY_PROCESSOR:g} W for a busy virtual processor"
    return Energy(cpu_seconds * WATTS_OF_A_BUSY_PROCESSOR, cpu_seconds, method)


def _microjoules(counter: Path) -> int | None:
    """Return the package's counter; None where there is none, or it is for the administrator alone."""
    try:
        return int((counter / "energy_uj").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
