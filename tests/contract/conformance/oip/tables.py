"""Results as Markdown: a glance for each area, and then every case on which a server fell short."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

Found = Mapping[str, Any]

# In the order in which a client meets them.
_AREAS: Final = {
    "health": "live, ready",
    "metadata": "metadata",
    "infer": "ModelInfer: ids, versions, names, orders, parameters",
    "contents": "ModelInfer: tensors of every datatype",
    "mistake": "ModelInfer: mistakes are refused",
    "mistake-code": "ModelInfer: mistakes are told by the right code",
    "deadline": "deadlines",
    "cancel": "cancellation",
    "wire": "gRPC: metadata, compression, bodies",
    "announced": "announced extensions are there, others UNIMPLEMENTED",
    "stream": "ModelStreamInfer",
    "configuration": "ModelConfig",
    "statistics": "ModelStatistics",
    "repository": "RepositoryIndex, Load, Unload",
    "shared-memory": "system shared memory",
    "trace": "TraceSetting",
    "logging": "LogSettings",
    "classification": "classification",
    "sequence": "sequences",
    "grpc-health": "grpc.health.v1",
    "reflection": "reflection",
    "robustness": "HTTP/2 abuse",
    "fuzz": "fuzzed requests",
}
_LEVELS: Final = ("MUST", "SHOULD", "extension", "robustness")
_SIGNS: Final = {"passed": "\u2713", "failed": "**\u2717**", "skipped": "\u00b7", None: "\u00b7"}


def one_server(found: Found) -> str:
    """Return the whole of one server's results."""
    head = f"# {found['column']}\n\n{found['name']} {found['version']}\n\n"
    rows = [
        (f"`{each['id']}`", each["level"], each["outcome"], _cell(each.get("detail", "")))
        for each in found["results"]
    ]
    return head + summary([found]) + "\n" + _table(("case", "level", "outcome", "detail"), rows)


def summary(servers: Sequence[Found]) -> str:
    """Return the passed and run cases of each level and area, a column for each server."""
    heads = ("", *(server["column"] for server in servers))
    levels = [(level, *(_share(s, "level", level) for s in servers)) for level in _LEVELS]
    areas = [(label, *(_share(s, "area", area) for s in servers)) for area, label in _AREAS.items()]
    return _table(("level", *heads[1:]), levels) + "\n" + _table(("area", *heads[1:]), areas)


def shortfalls(servers: Sequence[Found]) -> str:
    """Return every case that a server failed, with all servers' outcomes."""
    outcomes = [{each["id"]: each["outcome"] for each in server["results"]} for server in servers]
    levels = {each["id"]: each["level"] for server in servers for each in server["results"]}
    failed = sorted(
        {key for of in outcomes for key, outcome in of.items() if outcome == "failed"}, key=_order
    )
    rows = [(f"`{key}`", levels[key], *(_SIGNS[of.get(key)] for of in outcomes)) for key in failed]
    return _table(("case", "level", *(server["column"] for server in servers)), rows)


def reasons(server: Found) -> str:
    """Return what one server failed, and how."""
    failed = [each for each in server["results"] if each["outcome"] == "failed"]
    rows = [
        (f"`{each['id']}`", _cell(each.get("detail", "")))
        for each in sorted(failed, key=lambda e: _order(e["id"]))
    ]
    return _table(("case", "what was seen"), rows) if rows else "Nothing failed.\n"


def _share(server: Found, kind: str, wanted: str) -> str:
    """Return passed/run of an area or level; bold when something failed."""
    outcomes = [each["outcome"] for each in server["results"] if _kind(each, kind) == wanted]
    passed, run = outcomes.count("passed"), len(outcomes) - outcomes.count("skipped")
    if not run:
        return "\u2014"
    return f"{passed}/{run}" if passed == run else f"**{passed}/{run}**"


def _kind(result: Found, kind: str) -> str:
    text: str = result["level"].partition(":")[0] if kind == "level" else result["id"].partition("/")[0]
    return text


def _order(identity: str) -> tuple[int, str]:
    areas = list(_AREAS)
    area = identity.partition("/")[0]
    return (areas.index(area) if area in areas else len(areas), identity)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    listed = [list(heads), *map(list, rows)]
    lines = ["| " + " | ".join(row) + " |" for row in listed]
    return "\n".join([lines[0], "|" + " --- |" * len(listed[0]), *lines[1:]]) + "\n"
