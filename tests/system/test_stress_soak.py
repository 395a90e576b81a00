"""A short soak: at full rate, with swaps, the server's memory and files stay where they settled."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.source]

SOAK = Path(__file__).parents[2] / "benchmarks" / "soak.py"
# In so short a time pools still fill; a leak of a response for each request would be many times as much.
MOST_GROWN_KB = 32 * 1024


def test_memory_and_files_stay_where_they_are_at_full_rate_with_swaps() -> None:
    done = subprocess.run(
        [sys.executable, str(SOAK), "--minutes", "0.16", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    found = json.loads(done.stdout)
    assert found["failures"] == []
    assert found["requests"] > 500
    assert found["swaps"] >= 3
    assert found["pss_grown_kb"] < MOST_GROWN_KB
    # What a load holds open while it goes on.
    assert found["files_at_last"] <= found["files_at_first"] + 4
