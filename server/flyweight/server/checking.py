"""Reading a repository as the server would, without serving it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from flyweight.protos.errors import RepositoryError
from flyweight.protos.variant import MANIFEST_FILE
from flyweight.protos.variant.lineage import lineage_faults
from flyweight.protos.variant.names import MODEL_FILE
from flyweight.server.lifecycle.index import IndexEntry, State
from flyweight.server.lifecycle.manager import Manager, ManagerSettings
from flyweight.server.lifecycle.table import LoadedVariant, ServedModel
from flyweight.server.runtime.kinds import RuntimeKind, make_factory
from flyweight.server.runtime.processor import processor_doubt
from flyweight.server.runtime.seam import RuntimeFactory

# What lies beside a model's variants, and so is never at the top of a repository.
_BESIDE_VARIANTS = ("config.pbtxt", "traffic.yaml")

_NOTHING_THERE: Final = (
    "{repository} holds no model; a model is a folder in it, with a folder for each variant, and in each of "
    f"these a {MODEL_FILE}."
)

# Two scans that agree make a folder believed; there is no writer to wait for between them.
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class CheckedVariant:
    """A variant as it would be served; `share` is its fraction of the traffic that names no variant."""

    model: str
    variant: str
    role: str
    share: float
    file_bytes: int


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What would be served, and a sentence for everything that would not be, or not as it is on disk.

    `warnings` are of what is served although it does not come from where its manifest says, or was measured
    on another processor. `notes` are of what a config.pbtxt asks for and goes its own way here.
    """

    repository: str
    variants: tuple[CheckedVariant, ...]
    faults: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def document(self) -> dict[str, object]:
        """Return the report as JSON's types."""
        return {
            "repository": self.repository,
            "ok": not self.faults,
            "variants": [asdict(variant) for variant in self.variants],
            "faults": list(self.faults),
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


def check_repository(
    repository: Path, timeout_seconds: float, factory: RuntimeFactory | None = None
) -> CheckReport:
    """Load everything in a repository once: digests, manifests, sessions, golden outputs, traffic.yaml.

    Raises:
        RepositoryError: the repository is not a folder that can be read.
    """
    manager = Manager(ManagerSettings(repository, _POLL_SECONDS), factory or make_factory(RuntimeKind.INLINE))
    manager.start()
    try:
        settled = manager.wait_until_settled(timeout_seconds)
        faults = faults_of(manager.index())
        if not settled:
            faults.append(
                f"{repository} was not read within {timeout_seconds:g} s; allow more with --timeout."
            )
        models = sorted(manager.table.models.values(), key=lambda served: served.name)
        if settled and not models and not faults:
            faults.append(_NOTHING_THERE.format(repository=repository))
        return _report(repository, models, faults)
    finally:
        manager.stop()


def _report(repository: Path, models: Sequence[ServedModel], faults: Iterable[str]) -> CheckReport:
    loaded = [(model, name, variant) for model in models for name, variant in sorted(model.variants.items())]
    variants = [
        CheckedVariant(
            model=model.name,
            variant=name,
            role=model.role_of(name).value,
            share=model.plan.weight_of(name),
            file_bytes=variant.memory.file_bytes,
        )
        for model, name, variant in loaded
    ]
    warnings = [
        *(doubt for model in models for doubt in _lineage(repository / model.name, model.variants)),
        *(doubt for _, _, variant in loaded for doubt in _processor(variant)),
    ]
    # The variants of a model have one config.pbtxt, and so mostly the same notes.
    notes = dict.fromkeys(note for _, _, variant in loaded for note in variant.notes)
    return CheckReport(str(repository), tuple(variants), tuple(faults), tuple(warnings), tuple(notes))


def refuse_mistaken_path(path: Path) -> None:
    """Say which folder is meant when a path is a part of a repository, or a file, and not a repository.

    Raises:
        RepositoryError: with the folder to give instead.
    """
    where = path.absolute()
    if path.is_file():
        meant = where.parents[2] if path.name == MODEL_FILE and len(where.parents) > 3 else where.parent
        raise RepositoryError(f"{path} is a file; give the repository, the folder of models: {meant}")
    if (path / MODEL_FILE).is_file() or (path / MANIFEST_FILE).is_file():
        raise RepositoryError(
            f"{path} is the folder of one variant; give the repository, two levels up: {where.parent.parent}"
        )
    is_model = any((path / name).is_file() for name in _BESIDE_VARIANTS) or (
        any(path.glob(f"*/{MODEL_FILE}")) and not any(path.glob(f"*/*/{MODEL_FILE}"))
    )
    if is_model:
        raise RepositoryError(
            f"{path} looks like the folder of one model, with its variants in it; give the repository, one "
            f"level up ({where.parent}), or put each {MODEL_FILE} two folders deep (model/variant)."
        )


def _lineage(folder: Path, variants: Iterable[str]) -> list[str]:
    """Return what is wrong with where variants come from; those without a manifest say nothing of it."""
    return [
        fault
        for name in sorted(variants)
        if (folder / name / MANIFEST_FILE).is_file()
        for fault in lineage_faults(folder / name)
    ]


def _processor(variant: LoadedVariant) -> list[str]:
    if variant.manifest is None:
        return []
    doubt = processor_doubt(variant.manifest.environment.instruction_sets)
    return [f"{variant.model}/{variant.name} {doubt}"] if doubt else []


def faults_of(index: Iterable[IndexEntry]) -> list[str]:
    """Return a sentence for everything that is not served as it is in the repository."""
    return [
        f"{'/'.join(filter(None, (entry.name, entry.version)))}: {entry.reason}"
        for entry in index
        if entry.reason and entry.state in {State.READY, State.UNAVAILABLE}
    ]
