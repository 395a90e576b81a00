"""What a run found: as JSON for other programs, and as Markdown for people."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from oip.cases import Case

_LONGEST_DETAIL: Final = 300


@dataclass(frozen=True, slots=True)
class Result:
    """One case and what became of it: passed, failed or skipped, and why."""

    id: str
    level: str
    outcome: str
    detail: str
    statement: str
    source: str


@dataclass
class Report:
    """The results of one server."""

    column: str = ""
    name: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()
    results: dict[str, Result] = field(default_factory=dict)

    def name_server(self, name: str, version: str, extensions: Iterable[str]) -> None:
        """Note what the server calls itself."""
        self.name, self.version, self.extensions = name, version, tuple(extensions)

    def add(
        self, case: Case, found: pytest.TestReport, error: pytest.ExceptionInfo[BaseException] | None
    ) -> None:
        """Note one phase of a test; a failure in any phase is a failure of the case."""
        if found.when != "call" and found.outcome == "passed":
            return
        # A known shortfall is a shortfall: pytest calls it skipped.
        outcome = "failed" if hasattr(found, "wasxfail") else found.outcome
        detail = _first_line(error) if error is not None else ""
        self.results[case.identity] = Result(
            case.identity, case.level, outcome, detail, case.statement, case.source
        )

    def as_json(self) -> dict[str, Any]:
        """Return the report as what json can write, cases in the order of their ids."""
        return {
            "column": self.column or f"{self.name} {self.version}".strip(),
            "name": self.name,
            "version": self.version,
            "extensions": sorted(self.extensions),
            "results": [_told(self.results[key]) for key in sorted(self.results)],
        }


def write_reports(report: Report, json_file: str, markdown_file: str) -> None:
    """Write the files that have a name."""
    for name in filter(None, (json_file, markdown_file)):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
    if json_file:
        Path(json_file).write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    if markdown_file:
        from oip.tables import one_server

        Path(markdown_file).write_text(one_server(report.as_json()))


def _told(result: Result) -> dict[str, str]:
    """Return what is not empty, and what was required only where it was not met."""
    known = asdict(result)
    if result.outcome != "failed":
        del known["statement"], known["source"]
    return {name: value for name, value in known.items() if value}


def _first_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    text = getattr(error.value, "msg", None) or str(error.value) or error.typename
    line = next(iter(str(text).splitlines()), "")
    return line.removeprefix("AssertionError: ")[:_LONGEST_DETAIL]
