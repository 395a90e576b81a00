"""A conformance case: its id, its level, the models it needs, and what its docstring says of it."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
import pytest

# What the protocol's text demands, and gRPC's own of whoever speaks it.
MUST: Final = "MUST"
# What the text leaves open and a client reasonably relies on: the status code that fits, above all.
SHOULD: Final = "SHOULD"
# What a server of other people's requests needs, whatever the protocol says.
ROBUSTNESS: Final = "robustness"

# Parts of the protocol that no name in ServerMetadata.extensions stands for: there when they do not answer
# UNIMPLEMENTED.
UNNAMED_EXTENSIONS: Final = ("streaming", "health", "reflection")

Code = grpc.StatusCode
# What a call says that got no answer. No mistake in a request may have this effect. UNAVAILABLE is not among
# them: it is some servers' word for a version that is not there.
SILENCE: Final = frozenset({Code.DEADLINE_EXCEEDED, Code.CANCELLED})
# What a server says that does not know what happened to it.
BEWILDERED: Final = frozenset({Code.UNKNOWN, Code.INTERNAL, Code.DATA_LOSS})


def extension(name: str) -> str:
    """Return the level of what the extension `name` promises; skipped where it is not announced."""
    return f"extension:{name}"


def case(identity: str, level: str, *models: str) -> Callable[[Any], Any]:
    """Mark a test as the case `identity` ("infer/id-echoed", say), which needs `models` to be ready."""
    return pytest.mark.conformance(identity, level, models)


@dataclass(frozen=True, slots=True)
class Case:
    """One case as the report shows it; `extension` is the name that its level carries, or empty."""

    identity: str
    level: str
    models: tuple[str, ...]
    statement: str
    source: str

    @property
    def extension(self) -> str:
        """Return the extension's name; empty for what every server has."""
        return self.level.partition(":")[2]


# Where a test keeps the case that it stands for.
CASE: Final = pytest.StashKey[Case]()


def case_of(item: pytest.Item) -> Case | None:
    """Return the case that a test stands for; None for a test that is not part of the suite.

    A parameter with `statement`, `source` or `models` of its own speaks for itself, and its id is appended.
    """
    mark = item.get_closest_marker("conformance")
    if mark is None:
        return None
    identity, level, models = mark.args
    statement, source = _described(inspect.getdoc(item.function) or "")  # type: ignore[attr-defined]
    callspec = getattr(item, "callspec", None)
    if callspec is not None:
        identity = f"{identity}/{callspec.id}" if "{}" not in identity else identity.format(callspec.id)
        for value in callspec.params.values():
            statement = getattr(value, "statement", statement)
            source = getattr(value, "source", source)
            models = (*models, *getattr(value, "models", ()))
    return Case(identity, level, tuple(models), statement, source)


def _described(docstring: str) -> tuple[str, str]:
    """Return the first sentence, and what follows "Source:" up to the end."""
    text, _, source = docstring.partition("Source:")
    statement = " ".join(text.strip().split("\n\n", maxsplit=1)[0].split())
    return statement, re.sub(r"\s+", " ", source).strip()
