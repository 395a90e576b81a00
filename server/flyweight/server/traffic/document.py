"""The schema of traffic.yaml, and one clear sentence for each way to get it wrong."""

from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flyweight.protos.variant import is_valid_name
from flyweight.server.errors import TrafficPlanError

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


class TrafficDocument(BaseModel):
    """The keys of traffic.yaml."""

    model_config = _STRICT

    baseline: Annotated[str, Field(min_length=1)] | None = None
    split: Annotated[dict[str, Percent], Field(min_length=1)] | None = None
    sticky: Sticky = Sticky()


_KEYS: Final = {
    (): tuple(TrafficDocument.model_fields),
    ("sticky",): tuple(Sticky.model_fields),
}


class _TextLoader(yaml.BaseLoader):
    """Leaves scalars strings, so that a variant named 1e3 or no keeps its name; refuses repeated keys."""

    def construct_mapping(
        self,
        node: yaml.MappingNode,
        deep: bool = False,  # noqa: FBT001, FBT002 -- pyyaml's signature
    ) -> dict[Hashable, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a word", key.start_mark)
            if key.value in seen:
                problem = f"the key '{key.value}' stands there twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def read_document(text: str, path: Path) -> TrafficDocument:
    """Read YAML into the schema.

    Raises:
        TrafficPlanError: with one sentence that names the file, the key and what to do.
    """
    try:
        # A BaseLoader makes strings, lists and mappings and nothing else.
        content = yaml.load(text, Loader=_TextLoader)  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise TrafficPlanError(f"{path} is not valid YAML: {_yaml_reason(error)}; correct it.") from error
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
    for name in (document.baseline, *(document.split or {})):
        if name is not None and not is_valid_name(name):
            raise TrafficPlanError(f"{path}: {name!r} cannot be a variant's name; correct it.")


def _explain(error: ValidationError) -> str:
    """Tell the first of the schema's complaints in a sentence."""
    first = error.errors(include_url=False)[0]
    *parents, key = [str(part) for part in first["loc"]] or [""]
    if first["type"] == "extra_forbidden":
        inside = f" in '{parents[0]}'" if parents else ""
        return f"unknown key '{key}'{inside}; the keys there are {_listed(_KEYS[tuple(parents)])}."
    name = ".".join([*parents, key])
    given = first["input"]
    shown = f" is {given!r}, but" if isinstance(given, str) else ""
    expected = _EXPECTED.get(".".join(parents) or key, _EXPECTED.get(name, "another value"))
    return f"'{name}'{shown} must be {expected}."


_EXPECTED: Final = {
    "baseline": "the name of a variant",
    "split": "a number of percent from 0 to 100 for each variant, for example {baseline: 90, int8: 10}",
    "sticky": "a mapping with the keys 'parameter' and 'metadata', metadata being lower-case",
}


def _listed(names: tuple[str, ...]) -> str:
    *head, last = [f"'{name}'" for name in names]
    return f"{', '.join(head)} and {last}" if head else last


def _yaml_reason(error: yaml.YAMLError | RecursionError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}"
    return str(error).splitlines()[0]
