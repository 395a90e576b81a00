"""What a repository holds at one moment, as immutable data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from flyweight.server.repository.fingerprint import Fingerprint


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """Something wrong with a model, or with one variant of it when `variant` is not empty, in one sentence.

    `unreadable` says that the folder is there but could not be read, so that nothing is known of it.
    """

    model: str
    variant: str
    reason: str
    unreadable: bool = False


@dataclass(frozen=True, slots=True)
class VariantSnapshot:
    """A folder in a model's folder: a variant, or perhaps one, as of the scan."""

    name: str
    folder: Path
    fingerprint: Fingerprint


@dataclass(frozen=True, slots=True)
class ModelSnapshot:
    """A model's folder: what may be its variants, and the texts beside them (None where there is none).

    `files` are the other files beside the variants, and those in `warmup` and `initial_state`.
    """

    name: str
    folder: Path
    variants: Mapping[str, VariantSnapshot] = field(default_factory=lambda: MappingProxyType({}))
    config_text: str | None = None
    traffic_text: str | None = None
    files: Fingerprint = field(default_factory=Fingerprint)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole repository; `faults` are what in it could not be read or has no valid name."""

    models: Mapping[str, ModelSnapshot] = field(default_factory=lambda: MappingProxyType({}))
    faults: tuple[Fault, ...] = ()
