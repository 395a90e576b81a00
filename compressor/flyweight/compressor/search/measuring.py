"""Measuring the trials of a search: what is cheap first, and time only where nobody else takes it."""

import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from flyweight.compressor.context import Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.asking import plan_asking
from flyweight.compressor.evaluate.bench import BATCHES, BenchSettings
from flyweight.compressor.evaluate.labels import require_output
from flyweight.compressor.evaluate.latency import time_alone, time_in_turns
from flyweight.compressor.evaluate.macs import count_macs
from flyweight.compressor.evaluate.memory import MemoryMeter
from flyweight.compressor.evaluate.reference import Reference
from flyweight.compressor.evaluate.served import servable
from flyweight.compressor.onnx_model import count_parameters, file_bytes, load_graph
from flyweight.compressor.search.figures import Figures
from flyweight.compressor.sessions import Session

LOCK_NAME: Final = f"flyweight-measuring-{os.getuid()}.lock"


class Meter(Protocol):
    """Someone who takes the figures of variants; `baseline` holds those of the original."""

    baseline: Figures

    def look(self, path: Path) -> Figures:
        """Return what is cheap to know of the variant at `path`: quality and size, not time."""
        raise NotImplementedError

    def time(self, path: Path, found: Figures) -> Figures:
        """Return `found` with what takes a quiet machine: latency, and memory where it is wanted."""
        raise NotImplementedError


@contextmanager
def quiet_machine() -> Iterator[None]:
    """Hold the lock that all measuring processes of this user on this machine share.

    Trials are made at the same time and measured one after the other: two that are timed at once would each
    be told twice the time on a full machine, and by chance not the same on any other.
    """
    path = Path(tempfile.gettempdir()) / LOCK_NAME
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class VariantMeter:
    """Takes the figures of variants beside the baseline's, as they are served; used from one thread."""

    def __init__(
        self,
        baseline: Path,
        data: DataSet,
        folder: Path,
        settings: BenchSettings,
        *,
        memory: bool = False,
        progress: Progress = silent,
    ) -> None:
        """Load the baseline, take its answers and time it.

        Args:
            baseline: the original's ONNX file.
            data: to judge on.
            folder: for the baseline's answers.
            settings: how sessions are set up and how long a point is timed.
            memory: whether it is measured too, which takes a process of its own for each variant.
            progress: told of everything that takes longer than a moment.

        Raises:
            ModelError: the baseline cannot be loaded or run.
            DataError: the data do not fit it.
        """
        self._settings, self._data = settings, data
        self._session = Session(baseline, settings.session)
        require_output(settings.output, [spec.name for spec in self._session.signature.outputs])
        self._asking = plan_asking(self._session, data)
        self._reference = Reference(self._asking, data, folder, settings.output, settings.agreement, progress)
        self._meter = MemoryMeter(folder, settings.session) if memory else None
        # The smallest batch is what a budget's latency means, and what the gate recommends by.
        self._batch = self._asking.batches(BATCHES)[0]
        self._feed = self._asking.layout.sample_feed(data, self._batch)
        quality = self._reference.record(self._session).quality
        plain = self._sized(baseline, quality.figures, quality.metric)
        with quiet_machine():
            self._pace = time_alone(
                self._batch, self._session.runner(self._feed), settings.seconds_per_point / 2
            )
            self.baseline = replace(
                plain, latency=self._pace.p50_seconds, memory=self._memory_bytes(baseline)
            )

    def look(self, path: Path) -> Figures:
        """Return quality, size and counts of the variant at `path`.

        Raises:
            ModelError: it cannot stand in for the baseline, or its answers are not finite.
        """
        running, stored = servable(path)
        quality = self._reference.compare(self._loaded(running)).quality
        found = self._sized(running, quality.figures, quality.metric)
        return found if stored is None else replace(found, size=stored.stat().st_size)

    def time(self, path: Path, found: Figures) -> Figures:
        """Return `found` with the latency, timed in turns with the baseline's, and the memory if wanted.

        Raises:
            ModelError: the variant cannot be run.
        """
        running, _ = servable(path)
        session = self._loaded(running)
        with quiet_machine():
            point = time_in_turns(
                self._batch,
                self._session.runner(self._feed),
                session.runner(self._feed),
                self._settings.seconds_per_point,
            ).at_pace_of(self._pace)
            return replace(found, latency=point.p50_seconds, memory=self._memory_bytes(running))

    def _loaded(self, path: Path) -> Session:
        session = Session(path, self._settings.session)
        difference = self._session.signature.difference(session.signature)
        if difference is not None:
            raise ModelError(f"It cannot stand in for the baseline: {difference}.")
        return session

    def _sized(self, path: Path, quality: Mapping[str, float], metric: str) -> Figures:
        graph = load_graph(path, weights=False)
        return Figures(
            size=file_bytes(path),
            quality=dict(quality),
            metric=metric,
            macs=count_macs(
                graph, self._asking.layout, {name: array.shape for name, array in self._feed.items()}
            ),
            parameters=count_parameters(graph),
        )

    def _memory_bytes(self, path: Path) -> int | None:
        return None if self._meter is None else self._meter.growth_bytes(path, self._feed)
