"""The schema of traffic.yaml, and one clear sentence for each way to get it wrong."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.protos.variant import is_valid_name
from flyweight.server.errors import TrafficPlanError
from flyweight.server.plain_yaml import PlainYamlError, load_text

DEFAULT_STICKY_PARAMETER: Final = "flyweight_key"
DEFAULT_STICKY_METADATA: Final = "flyweight-key"

_STRICT: Final = ConfigDict(extra="forbid", frozen=True)

Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class Sticky(BaseModel):
    """Where a request carries the key that keeps its sender on one variant."""

    model_config = _STRICT

    parameter: Annotated[str, Field(min_length=1)] = DEFAULT_STICKY_PARAMETER
    # The names that HTTP/2 and gRPC allow for metadata that is not binary.
    metadata: Annotated[str, Field(pattern=r"^[0-9a-z_.-]+$")] = DEFAULT_STICKY_METADATA


class BrownoutDocument(BaseModel):
    """Who answers what would be refused otherwise, and from which share of a full queue on."""

    model_config = _STRICT

    to: Annotated[str, Field(min_length=1)]
    above: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class TrafficDocument(BaseModel):
    """The keys of traffic.yaml."""

    model_config = _STRICT

    baseline: Annotated[str, Field(min_length=1)] | None = None
    split: Annotated[dict[str, Percent], Field(min_length=1)] | None = None
    sticky: Sticky = Sticky()
    labels: dict[str, str] | None = None
    fallback: Annotated[str, Field(min_length=1)] | None = None
    brownout: BrownoutDocument | None = None


_KEYS: Final = {
    (): tuple(TrafficDocument.model_fields),
    ("sticky",): tuple(Sticky.model_fields),
    ("brownout",): tuple(BrownoutDocument.model_fields),
}


def read_document(text: str, path: Path) -> TrafficDocument:
    """Read YAML into the schema.

    Raises:
        TrafficPlanError: with one sentence that names the file, the key and what to do.
    """
    try:
        content = load_text(text)
    except PlainYamlError as error:
        raise TrafficPlanError(f"{path} is not valid YAML: {error}; correct it.") from error
    if content is None or content == "":
        return TrafficDocument()
    if not isinstance(content, dict):
        raise TrafficPlanError(f"{path} must be a mapping with the keys {_listed(_KEYS[()])}.")
    try:
        document = TrafficDocument.model_validate(content)
    except ValidationError as error:
        raise TrafficPlanError(f"{path}: {_explain(error)}") from error
    _check_names(document, path)
    return document


def _check_names(document: TrafficDocument, path: Path) -> None:
    labels = document.labels or {}
    brownout = document.brownout.to if document.brownout is not None else None
    names = (document.baseline, *(document.split or {}), *labels.values(), document.fallback, brownout)
    for name in names:
        if name is not None and not is_valid_name(name):
            raise TrafficPlanError(f"{path}: {name!r} cannot be a variant's name; correct it.")
    for label in labels:
        # Callers ask for it where a variant's name stands.
        if not is_valid_name(label):
            raise TrafficPlanError(f"{path}: {label!r} cannot be a label; name it like a variant.")


def _explain(error: ValidationError) -> str:
    """Tell the first of the schema's complaints in a sentence."""
    # A misspelt key explains the one that is missed.
    errors = error.errors(include_url=False)
    first = min(errors, key=lambda one: one["type"] != "extra_forbidden")
    *parents, key = [str(part) for part in first["loc"]] or [""]
    if first["type"] == "extra_forbidden":
        inside = f" in '{parents[0]}'" if parents else ""
        return f"unknown key '{key}'{inside}; the keys there are {_listed(_KEYS[tuple(parents)])}."
    if first["type"] == "missing":
        return f"'{parents[0]}' has no '{key}'; it must be {_EXPECTED[parents[0]]}."
    name = ".".join([*parents, key])
    given = first["input"]
    shown = f" is {given!r}, but" if isinstance(given, str) else ""
    expected = _EXPECTED.get(".".join(parents) or key, _EXPECTED.get(name, "another value"))
    return f"'{name}'{shown} must be {expected}."


_EXPECTED: Final = {
    "baseline": "the name of a variant",
    "split": "a number of percent from 0 to 100 for each variant, for example {baseline: 90, int8: 10}",
    "sticky": "a mapping with the keys 'parameter' and 'metadata', metadata being lower-case",
    "labels": "a variant for each label, for example {stable: baseline, canary: int8}",
    "fallback": "the name of a variant",
    "brownout": (
        "a variant and the share of a full queue, from 0 to 1, above which it answers, for example "
        "{to: int8, above: 0.5}"
    ),
}


def _listed(names: tuple[str, ...]) -> str:
    *head, last = [f"'{name}'" for name in names]
    return f"{', '.join(head)} and {last}" if head else last
