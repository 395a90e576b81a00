"""What gives way, and what must not: the scheduling policy of threads as the kernel tells it."""

import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.priority import do_aside, give_way
from flyweight.server.runtime.process import child
from flyweight.server.runtime.process.factory import ProcessFactory
from flyweight.server.runtime.process.runtime import ProcessRuntime
from flyweight.server.runtime.seam import SessionSettings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority")

LOWEST = os.SCHED_IDLE if sys.platform == "linux" else None


def policy() -> int:
    return os.sched_getscheduler(threading.get_native_id())


def policy_after(job: Callable[[], object]) -> int:
    """Return the policy of a thread of its own once it has done a job."""
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append((job(), policy())[1]))
    thread.start()
    thread.join()
    return found[0]


def policies_of_tasks(pid: int) -> set[int]:
    return {os.sched_getscheduler(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}


def watch(module: str, function: str, log: Path) -> str:
    """Return a program of a worker that writes down the policy of whoever calls a function of it."""
    return (
        "import os, sys, threading\n"
        f"from flyweight.server.runtime.process import {module}\n"
        f"inner = {module}.{function}\n"
        "def outer(*arguments):\n"
        f"    with open({str(log)!r}, 'a') as file:\n"
        "        print(os.sched_getscheduler(threading.get_native_id()), file=file)\n"
        "    return inner(*arguments)\n"
        f"{module}.{function} = outer\n"
    )


def test_who_gives_way_runs_when_nobody_else_wants_to() -> None:
    before = policy()
    assert policy_after(give_way) == LOWEST
    assert policy() == before


def test_what_is_done_aside_gives_way_and_its_caller_does_not() -> None:
    before, seen = policy(), list[int]()
    do_aside(lambda: seen.append(policy()))
    assert seen == [LOWEST]
    assert policy() == before


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (SessionSettings(gives_way=True), True),
        (SessionSettings(1, gives_way=True), True),
        (SessionSettings(), False),
        (SessionSettings(2, gives_way=True), False),
        (SessionSettings(config_entries={"execution_mode": "1"}, gives_way=True), False),
        (SessionSettings(config_entries={"inter_op_thread_count": "2"}, gives_way=True), False),
    ],
)
def test_sessions_with_threads_of_their_own_do_not_give_way(
    tiny_model: Any, tmp_path: Path, settings: SessionSettings, *, expected: bool
) -> None:
    """Their threads would run every request with the priority that they were born with."""
    path = tiny_model(tmp_path / "tiny" / "1" / "model.onnx")
    usual = policy()
    after = policy_after(lambda: InlineFactory(cores=2).load(path, settings).close())
    assert after == (LOWEST if expected else usual)


def test_a_worker_that_gave_way_serves_with_the_usual_priority(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "policies"
    watched = watch("entry", "import_module", log) + "entry.main(sys.argv[1:])"
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", watched))
    path = tiny_model(tmp_path / "tiny" / "1" / "model.onnx")
    usual, factory, made = policy(), ProcessFactory(cores=2), list[ProcessRuntime]()
    after = policy_after(lambda: made.append(factory.load(path, SessionSettings(gives_way=True))))
    [runtime] = made
    try:
        assert after == LOWEST
        assert log.read_text().split() == [str(LOWEST), str(usual)]
        assert runtime.pid is not None
        assert policies_of_tasks(runtime.pid) == {usual}
    finally:
        runtime.close()


def test_a_run_for_somebody_who_gives_way_gives_way_in_the_worker(
    tiny_model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "policies"
    watched = watch("worker", "_answer", log) + "worker.main(sys.argv[1])"
    monkeypatch.setattr(child, "_COMMAND", ("-P", "-c", watched))
    path = tiny_model(tmp_path / "tiny" / "1" / "model.onnx")
    runtime = ProcessFactory(cores=2).load(path, SessionSettings())
    inputs = {"x": np.ones((1, 4), np.float32)}
    try:
        do_aside(lambda: runtime.run(inputs))
        runtime.run(inputs)
        assert log.read_text().split() == [str(LOWEST), str(policy())]
    finally:
        runtime.close()
