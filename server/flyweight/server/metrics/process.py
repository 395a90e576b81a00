"""The process's memory, read when it is asked for.

PSS and USS, because RSS counts pages that processes share once for each of them (proc(5), smaps_rollup).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from flyweight.server.runtime.memory import PROCESS, read_held


class ProcessMemory(Collector):
    """Collects flyweight_process_memory_bytes; `folder` is the process's in /proc."""

    def __init__(self, folder: Path = PROCESS) -> None:
        self._folder = folder

    def describe(self) -> Iterable[Metric]:
        """Tell the name without reading anything, so that registering costs nothing."""
        yield _family()

    def collect(self) -> Iterator[Metric]:
        """Read /proc; nothing where the kernel does not tell."""
        family = _family()
        held = read_held(self._folder)
        if held is not None:
            family.add_metric(["pss"], held.pss_bytes)
            family.add_metric(["uss"], held.uss_bytes)
            family.add_metric(["peak_rss"], held.peak_resident_bytes)
        yield family


def _family() -> GaugeMetricFamily:
    return GaugeMetricFamily(
        "flyweight_process_memory_bytes",
        "The server's own memory (pss: its fair share, uss: its alone, peak_rss: the most it ever had): "
        "how much does it take?",
        labels=["kind"],
    )
