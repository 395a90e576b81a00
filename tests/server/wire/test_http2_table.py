"""Every test that docs/http2.md names is there."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.source

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "http2.md"
SHORT = {
    "ends it[": "test_what_is_wrong_with_the_connection_ends_it[",
    "ends one[": "test_what_is_wrong_with_a_stream_ends_that_one_only[",
    "right[": "test_the_wire_does_what_is_right[",
}


def named() -> list[str]:
    """Return the tests that the tables name, in full."""
    rows = [line for line in PAGE.read_text().splitlines() if re.match(r"\| [0-9]", line)]
    found = [name for row in rows for name in re.findall(r"`([^`]*)`", row.split(" | ")[2])]
    for short, full in SHORT.items():
        found = [name.replace(short, full) if name.startswith(short) else name for name in found]
    return [name for name in found if name.startswith(("test_", "Test"))]


def there() -> set[str]:
    """Return the names of all tests, with and without what they are parametrized by."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/server/wire", "tests/fuzz"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=100).stdout
    found: set[str] = set()
    for line in listed.splitlines():
        _, colons, name = line.partition("::")
        if colons:
            function, bracket, parameters = name.partition("[")
            found |= {name, *function.split("::")}
            # Of several parameters the first is enough.
            found |= {f"{function}{bracket}{parameters.rpartition('-')[0]}]"}
    return found


def test_every_test_in_the_table_exists() -> None:
    names = named()
    assert len(names) > 80
    assert sorted(set(names) - there()) == []
