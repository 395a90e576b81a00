import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.system, pytest.mark.torch]

Find = Callable[[Path], list[psutil.Process]]


def read_until(stream: Any, word: str) -> None:
    """Read lines until one holds `word`; fails when the stream ends before."""
    for line in stream:
        if word in line:
            return
    pytest.fail(f"the demo ended before it said {word!r}")


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it did not come about within a minute"
        threading.Event().wait(0.02)


def test_a_quick_run_shows_all_that_is_promised(
    tmp_path: Path, started_demo: Any, processes_of: Find
) -> None:
    with started_demo(tmp_path) as process:
        output, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {variant["name"] for variant in summary["variants"] if variant["bytes"]} == {
        "baseline",
        "int8",
        "int8-dynamic",
        "fp16",
        "pruned",
        "pruned-int8",
        "distilled",
    }
    serving = summary["serving"]
    assert serving["failed"] == 0
    assert serving["requests"] == sum(seen["requests"] for seen in serving["variants"].values())
    assert serving["variants"][serving["hot_load"]["variant"]]["requests"] > 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    assert (tmp_path / "repository" / "digits" / "baseline" / "manifest.json").is_file()
    assert "A quick run" in output
    assert str(tmp_path / "report.html") in output
    assert processes_of(tmp_path) == []


def test_after_ctrl_c_under_traffic_nothing_stays_behind(
    tmp_path: Path, started_demo: Any, processes_of: Find
) -> None:
    with started_demo(tmp_path) as process:
        read_until(process.stdout, "serving live traffic")
        wait_for(lambda: any("serve" in found.cmdline() for found in processes_of(tmp_path)))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.strip() == "demo: interrupted; everything it started has ended."
    assert processes_of(tmp_path) == []
    # The variant that was to be hot-loaded is in the repository again.
    assert not (tmp_path / "held-back").exists()
    assert (tmp_path / "repository" / "digits" / "distilled" / "manifest.json").is_file()


def test_after_sigterm_while_compressing_nothing_stays_behind(
    tmp_path: Path, started_demo: Any, processes_of: Find
) -> None:
    with started_demo(tmp_path) as process:
        read_until(process.stdout, "compressing")
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [child for child in children if child.is_running()] == []
    assert processes_of(tmp_path) == []
