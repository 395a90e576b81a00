"""Models that come and go leave nothing behind: no memory in the server, no process, no open file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory_models import row, write
from flyweight.client import Client, Settings

pytestmark = [pytest.mark.system, pytest.mark.source]

NAMES = ("mlp", "convnet-int8", "matmul")
# The first cycles fill pools and touch code; a model of theirs that stayed would be 1, 20 or 50 MB.
SETTLED, CYCLES = 12, 48
MOST_GROWN_BYTES = 5 << 20


def uss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    fields = {line.split()[0]: int(line.split()[1]) * 1024 for line in lines}
    return fields["Private_Clean:"] + fields["Private_Dirty:"]


def children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text(encoding="ascii").split()]


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.parametrize("runtime", ["inline", "process"])
def test_the_server_is_as_large_after_many_cycles_as_after_a_few(
    start_server: Callable[..., Any], tmp_path: Path, wait_for: Callable[..., Any], runtime: str
) -> None:
    for name in NAMES:
        write(name, tmp_path / "repository" / name / "1" / "model.onnx")
    server = start_server(tmp_path / "repository", "--runtime", runtime, "--model-control", "explicit")
    pid, held = server.process.pid, []
    with Client(server.address, Settings(timeout_seconds=60)) as client:
        for cycle in range(CYCLES):
            name = NAMES[cycle % len(NAMES)]
            client.load(name)
            client.predict(name, {"x": row(name)})
            client.unload(name)
            if cycle == SETTLED:
                files = open_files(pid)
            held.append(uss(pid))
        # Of the last few the least: a figure taken in the middle of a scan is no leak.
        assert min(held[-6:]) - min(held[SETTLED : SETTLED + 6]) <= MOST_GROWN_BYTES, held
        assert wait_for(lambda: children(pid), lambda left: not left) == []
        # A file may be open for a scan, and one for a connection.
        assert wait_for(lambda: open_files(pid), lambda count: count <= files + 2) > 0
