"""The bench on which every variant is measured against the same baseline, on the same data."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from flyweight.compressor.context import Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import ModelError
from flyweight.compressor.evaluate.agreement import Kind
from flyweight.compressor.evaluate.asking import Asking, plan_asking
from flyweight.compressor.evaluate.energy import estimate_energy
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.examination import Examiner
from flyweight.compressor.evaluate.labels import require_output
from flyweight.compressor.evaluate.latency import LatencyPoint, time_alone, time_surely
from flyweight.compressor.evaluate.load_time import LoadTime, time_loading
from flyweight.compressor.evaluate.macs import explain_macs
from flyweight.compressor.evaluate.memory import MemoryMeter
from flyweight.compressor.evaluate.reference import Judged, Reference
from flyweight.compressor.evaluate.served import decode
from flyweight.compressor.evaluate.settings import BATCHES, EvaluationSettings
from flyweight.compressor.evaluate.size import measure_size
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.variant.names import CODED_SUFFIX

__all__ = ["BATCHES", "Bench", "BenchSettings"]

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """How variants are measured.

    Attributes:
        session: how sessions are set up; a variant is served in the same way.
        seconds_per_point: of timing for each batch size of each variant, baseline's turns included.
        output: the output that labels are compared with; None takes the first that fits.
        agreement: what the same answer means; see evaluate/agreement.py.
        evaluation: how thoroughly.
    """

    session: SessionSettings = field(default_factory=SessionSettings)
    seconds_per_point: float = 1.0
    output: str | None = None
    agreement: Kind = "auto"
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)


class Bench:
    """Holds the baseline's session and its answers; used from one thread.

    The baseline's answers lie on disk, in `folder`, so that memory does not grow with the data.
    """

    def __init__(
        self,
        baseline: Path,
        data: DataSet,
        folder: Path,
        settings: BenchSettings,
        progress: Progress = silent,
    ) -> None:
        """Load the baseline and check that the data fit it.

        Raises:
            ModelError: it cannot be loaded or run.
            DataError: the data do not fit it, or it has no output of the name asked for.
        """
        self.settings = settings
        self.data = data
        self.session = Session(baseline, settings.session)
        require_output(settings.output, [spec.name for spec in self.session.signature.outputs])
        self.asking: Asking = plan_asking(self.session, data)
        self._path = baseline
        self._folder = folder
        self._progress = progress
        self.reference = Reference(self.asking, data, folder, settings.output, settings.agreement, progress)
        self.samples = self.reference.samples
        self._pace: dict[tuple[int, int], LatencyPoint] = {}
        self._sessions: dict[int, Session] = {settings.session.threads: self.session}
        self._meter: MemoryMeter | None = None
        self._examiner: Examiner | None = None

    def measure_baseline(self) -> Evaluation:
        """Take the baseline's answers and measure it against itself; the first thing to call.

        Raises:
            ModelError: it cannot be run on all of the data.
            DataError: the labels fit none of its outputs.
        """
        return self._evaluate(self._path, None, self.session, self.reference.record(self.session))

    def measure(self, path: Path, stored: Path | None = None) -> Evaluation:
        """Measure the variant at `path`.

        Args:
            path: the ONNX model that runs.
            stored: the file that is published, when it is another (a coded file): its bytes count, and
                decoding it counts to the time of loading.

        Raises:
            ModelError: it cannot be loaded or run, takes or gives other tensors than the baseline, or its
                answers are not finite: it is broken.
        """
        session = Session(path, self.settings.session)
        difference = self.session.signature.difference(session.signature)
        if difference is not None:
            raise ModelError(f"It cannot stand in for the baseline: {difference}.")
        return self._evaluate(path, stored, session, self.reference.compare(session))

    def examine(self, path: Path, measured: Evaluation, seconds: float | None = None) -> Evaluation:
        """Look closer at a variant that is to be published: robustness, triggers, stability.

        Args:
            path: the ONNX model that runs.
            measured: what `measure` returned for it.
            seconds: that this may take; None takes the settings'.

        Raises:
            ModelError: it fails on disturbed or repeated input.
        """
        settings = self.settings.evaluation
        if seconds is not None:
            settings = replace(settings, examination_seconds=min(seconds, settings.examination_seconds))
        if not settings.examines:
            return measured
        if self._examiner is None:
            slowest = max(measured.latency, key=lambda point: point.batch)
            one_sample = (slowest.p50_seconds + slowest.baseline_p50_seconds) / slowest.batch
            self._examiner = Examiner(
                self.session,
                self.asking,
                self.data,
                (self.reference.task, self.settings.agreement),
                (one_sample, settings.examination_seconds),
                self._progress,
            )
        return self._examiner.examine(path, self.settings.session, measured, settings)

    def _evaluate(self, path: Path, stored: Path | None, session: Session, judged: Judged) -> Evaluation:
        settings = self.settings.evaluation
        latency = self._latency(session, self.asking.batches(settings.batches))
        self._meter = self._meter or MemoryMeter(self._folder, self.settings.session)
        feed = self.asking.layout.sample_feed(self.data, latency[0].batch)
        self._progress("loading", 0, 2)
        load = self._load(path, stored)
        self._progress("loading", 1, 2)
        size = measure_size(path, stored)
        macs, unknown = explain_macs(
            load_graph(path, weights=False),
            self.asking.layout,
            {name: array.shape for name, array in feed.items()},
        )
        evaluation = Evaluation(
            file_bytes=size.file_bytes,
            parameters=size.parameters,
            macs=macs,
            quality=judged.quality,
            latency=latency,
            pss_bytes=self._meter.growth_bytes(path, feed),
            compressed_bytes=size.compressed_bytes,
            nonzero_parameters=size.nonzero_parameters,
            bits_per_weight=size.bits_per_weight,
            macs_unknown=unknown,
            latency_grid=self._grid(path, session, latency),
            load=load,
            energy=estimate_energy(session.runner(feed), self.settings.seconds_per_point / 4),
            predictions=judged.predictions,
        )
        self._progress("loading", 2, 2)
        return evaluation

    def _load(self, path: Path, stored: Path | None) -> LoadTime:
        settings = self.settings.session

        def build() -> Session:
            if stored is not None and stored.suffix == CODED_SUFFIX:
                decode(stored)
            return Session(path, settings)

        return time_loading(lambda: Session(self._path, settings), build, self.settings.seconds_per_point / 2)

    def _latency(self, session: Session, batches: tuple[int, ...]) -> tuple[LatencyPoint, ...]:
        points = list[LatencyPoint]()
        for done, batch in enumerate(batches):
            self._progress("timing", done, len(batches))
            points.append(self._time(session, batch, self.settings.session.threads))
        self._progress("timing", len(batches), len(batches))
        return tuple(points)

    def _grid(
        self, path: Path, session: Session, known: tuple[LatencyPoint, ...]
    ) -> tuple[LatencyPoint, ...]:
        """Time the further batch sizes and numbers of threads; what is known already is taken over."""
        settings, primary = self.settings.evaluation, self.settings.session.threads
        batches = self.asking.batches(settings.grid_batches or settings.batches)
        threads = settings.grid_threads or ((primary,) if settings.grid_batches else ())
        points, total = list[LatencyPoint](), len(batches) * len(threads)
        for count in threads:
            mine = session if count == primary else None
            for batch in batches:
                self._progress("timing the grid", len(points), total)
                found = [point for point in known if count == primary and point.batch == batch]
                if not found:
                    mine = mine or self._with_threads(path, count)
                    found = [self._time(mine, batch, count)]
                points += found
        return tuple(points)

    def _with_threads(self, path: Path, threads: int) -> Session:
        if threads not in self._sessions:
            self._sessions[threads] = Session(self._path, replace(self.settings.session, threads=threads))
        if path == self._path:
            return self._sessions[threads]
        return Session(path, replace(self.settings.session, threads=threads))

    def _time(self, session: Session, batch: int, threads: int) -> LatencyPoint:
        feed = self.asking.layout.sample_feed(self.data, batch)
        baseline, seconds = self._sessions[threads], self.settings.seconds_per_point
        if session is baseline:
            point = replace(time_alone(batch, session.runner(feed), seconds / 2), threads=threads)
            self._pace[batch, threads] = point
            return point
        point = time_surely(batch, baseline.runner(feed), session.runner(feed), seconds)
        return replace(point.at_pace_of(self._pace[batch, threads]), threads=threads)
