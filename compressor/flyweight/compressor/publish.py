"""Writing a measured variant into a repository, with everything that a server or a later reader must know."""

import contextlib
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import numpy as np

from flyweight.compressor.evaluate.bench import Bench
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.onnx_model import external_files, load_graph
from flyweight.compressor.processor import this_processor
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.signature import TensorSpec
from flyweight.compressor.versions import installed_versions
from flyweight.protos.errors import ManifestError, RepositoryError
from flyweight.protos.manifest.v1.manifest_pb2 import (
    Environment,
    Footprint,
    Golden,
    LatencyMeasurement,
    Lineage,
    Quality,
    TensorSignature,
    VariantManifest,
)
from flyweight.protos.manifest.v1.manifest_pb2 import SessionSettings as SettingsMessage
from flyweight.protos.variant import (
    GOLDEN_FILE,
    MODEL_FILE,
    GoldenSamples,
    publish_variant,
    read_manifest,
    require_valid_name,
    write_golden,
)
from flyweight.protos.variant.names import CODED_FILE

# A few rows show a wrong kernel as well as many.
_GOLDEN_ROWS: Final = 4
_LARGEST_GOLDEN_BYTES: Final = 16 << 20
# Other processors add up in another order, which changes fp32 answers by rounding. In int8 the same rounding
# can move a value by a step of 1/255; saturation, which the check is there to find, moves it by far more.
_FLOAT_TOLERANCE: Final = 1e-3
_INTEGER_TOLERANCE: Final = 0.05
_TOOLS: Final = ("flyweight", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a variant comes from.

    Attributes:
        kind: what makes it differ, in a few words.
        recipe: as YAML; empty for the baseline.
        parent: the variant it was derived from; empty for the baseline.
        parent_sha256: of the parent's model.onnx.
    """

    kind: str
    recipe: str = ""
    parent: str = ""
    parent_sha256: str = ""


@dataclass(frozen=True, slots=True)
class Publisher:
    """Publishes variants of one model into one repository."""

    repository: Path
    model: str
    bench: Bench
    data_sha256: str

    def publish(
        self, name: str, path: Path, evaluation: Evaluation, origin: Origin, stored: Path | None = None
    ) -> Path:
        """Write the variant at `path` as `name` and return its folder.

        Args:
            name: of the variant.
            path: the ONNX file that was measured.
            evaluation: its figures.
            origin: where it comes from.
            stored: the coded file that decodes to `path` and is published instead; None publishes `path`.

        Raises:
            RepositoryError: the repository cannot be written.
        """
        manifest = self._manifest(name, evaluation, origin)
        golden = golden_samples(self.bench, path)
        if golden is not None:
            integers = _computes_in_integers(path)
            tolerance = _INTEGER_TOLERANCE if integers else _FLOAT_TOLERANCE
            manifest.golden.CopyFrom(Golden(file=GOLDEN_FILE, relative_tolerance=tolerance))

        def fill(folder: Path) -> None:
            if stored is not None:
                shutil.copyfile(stored, folder / CODED_FILE)
            else:
                _copy_model(path, folder)
            if golden is not None:
                write_golden(folder, golden)

        return publish_variant(self.repository, manifest, fill)

    def _manifest(self, name: str, evaluation: Evaluation, origin: Origin) -> VariantManifest:
        settings, processor = self.bench.settings.session, this_processor()
        signature = self.bench.session.signature
        return VariantManifest(
            model=self.model,
            variant=name,
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            kind=origin.kind,
            lineage=Lineage(
                parent=origin.parent,
                parent_sha256=origin.parent_sha256,
                recipe=origin.recipe,
                data_sha256=self.data_sha256,
                tools=_tools(),
            ),
            inputs=[_tensor(spec) for spec in signature.inputs],
            outputs=[_tensor(spec) for spec in signature.outputs],
            session=SettingsMessage(intra_op_threads=settings.threads, config_entries=dict(settings.config)),
            latencies=_latencies(evaluation, settings),
            quality=Quality(
                metric=evaluation.quality.metric,
                value=evaluation.quality.value,
                baseline_value=evaluation.quality.baseline_value,
                samples=evaluation.quality.samples,
                figures=dict(evaluation.quality.figures),
            ),
            footprint=Footprint(
                file_bytes=evaluation.file_bytes,
                parameters=evaluation.parameters,
                macs=evaluation.macs or 0,
                pss_bytes=evaluation.pss_bytes,
            ),
            environment=Environment(
                cpu=processor.name,
                instruction_sets=processor.instruction_sets,
                cores=processor.cores,
            ),
        )


def _copy_model(path: Path, folder: Path) -> None:
    """Copy an ONNX file and its external data."""
    for source in external_files(path, load_graph(path, weights=False)):
        target = folder / source.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    shutil.copyfile(path, folder / MODEL_FILE)


def check_repository(repository: Path, model: str, inputs: tuple[TensorSpec, ...]) -> None:
    """Refuse a place where publishing would fail, or would replace another model, before any work is done.

    Raises:
        RepositoryError: the name is not allowed, or the folder cannot be written, holds another model or
            a baseline whose manifest does not tell of what model it is.
    """
    folder = repository / require_valid_name(model, "model")
    try:
        _try_to_write(folder)
    except OSError as error:
        raise RepositoryError(
            f"The repository {repository} cannot be written ({error.strerror}); check its path and rights."
        ) from error
    try:
        manifest = read_manifest(folder / "baseline")
    except ManifestError as error:
        # Its advice, to publish the variant again, is what cannot be done here.
        reason = str(error).rpartition("; ")[0] or str(error)
        raise RepositoryError(
            f"{reason}, so that nobody knows what model {folder} holds; "
            "remove that folder or choose another --name."
        ) from error
    if manifest is None:
        return
    theirs = {(tensor.name, tensor.datatype) for tensor in manifest.inputs}
    if theirs != {(spec.name, spec.datatype) for spec in inputs}:
        names = ", ".join(sorted(name for name, _ in theirs))
        raise RepositoryError(
            f"{folder} holds another model, whose inputs are {names}; "
            "choose another --name or remove that folder."
        )


def _try_to_write(folder: Path) -> None:
    """Write a file into `folder` and take it away again, with every folder that had to be made for it."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    probe = folder / ".writable"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.rmdir()


def golden_samples(bench: Bench, path: Path) -> GoldenSamples | None:
    """Return inputs and what the variant answers; None for strings, large tensors and random answers."""
    session = Session(path, bench.settings.session)
    rows = bench.asking.layout.rows or (_GOLDEN_ROWS if bench.asking.rows > 1 else 1)
    inputs = bench.asking.layout.sample_feed(bench.data, min(rows, bench.data.samples))
    outputs, again = session.run(inputs), session.run(inputs)
    arrays = [*inputs.values(), *outputs.values()]
    if any(array.dtype == object for array in arrays):
        return None
    if sum(array.nbytes for array in arrays) > _LARGEST_GOLDEN_BYTES:
        return None
    if not all(np.array_equal(outputs[name], again[name], equal_nan=True) for name in outputs):
        return None
    return GoldenSamples(inputs, outputs)


def _tools() -> dict[str, str]:
    """Return the version of every tool that had a hand in a variant."""
    # The extra is imported only where it was used; that it is installed says nothing.
    return installed_versions((*_TOOLS, *(["torch"] if "torch" in sys.modules else [])))


def _latencies(evaluation: Evaluation, settings: SessionSettings) -> list[LatencyMeasurement]:
    return [
        LatencyMeasurement(
            batch=point.batch,
            threads=settings.threads,
            p50_seconds=point.p50_seconds,
            p99_seconds=point.p99_seconds,
            speedup=point.speedup,
            runs=point.runs,
        )
        for point in evaluation.latency
    ]


def _tensor(spec: TensorSpec) -> TensorSignature:
    shape = [-1 if length is None else length for length in spec.shape]
    return TensorSignature(name=spec.name, datatype=spec.datatype, shape=shape)


def _computes_in_integers(path: Path) -> bool:
    operators = {node.op_type for node in load_graph(path, weights=False).graph.node}
    return any(name.startswith(("QLinear", "Quantize", "DynamicQuantize")) for name in operators)
