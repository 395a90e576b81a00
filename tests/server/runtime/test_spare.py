"""Made-up counters in the words of proc_stat(5), and this machine's own."""

import os
from pathlib import Path

import pytest

from flyweight.server.runtime.spare import SpareTime

OTHERS = "cpu  0 0 0 0 0 0 0 0 0 0\nintr 1 2 3\nctxt 7\n"


class Machine:
    """A processor whose counters are a file, beside one that is always idle and not this process's."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.seconds = 0.0
        self._busy = self._idle = 0
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1}, raising=False)
        self._write()

    def live(self, busy: int, idle: int) -> None:
        self._busy += busy
        self._idle += idle
        self.seconds += (busy + idle) / 100
        self._write()

    def _write(self) -> None:
        mine = f"cpu1 {self._busy} 0 0 {self._idle} 0 0 0 0 0 0\n"
        self.path.write_text(f"{OTHERS}cpu0 0 0 0 {int(self.seconds * 100)} 0 0 0 0 0 0\n{mine}")

    def spare(self) -> SpareTime:
        return SpareTime(self.path, lambda: self.seconds)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path / "stat", monkeypatch)


@pytest.mark.parametrize(("idle", "expected"), [(100, True), (10, True), (9, False), (0, False)])
def test_a_tenth_of_the_time_is_enough(machine: Machine, idle: int, *, expected: bool) -> None:
    spare = machine.spare()
    machine.live(busy=100 - idle, idle=idle)
    assert spare.is_enough() is expected


def test_what_was_long_ago_says_nothing(machine: Machine) -> None:
    spare = machine.spare()
    machine.live(busy=0, idle=10_000)
    spare.look()
    machine.live(busy=100, idle=0)
    spare.look()
    machine.live(busy=100, idle=0)
    assert not spare.is_enough()


def test_looks_that_follow_each_other_keep_the_time_between(machine: Machine) -> None:
    spare = machine.spare()
    machine.live(busy=0, idle=50)
    for _ in range(3):
        spare.look()
    assert spare.is_enough()


@pytest.mark.parametrize("text", ["", "cpu1 1 2\n", "cpu1 a b c d e f g h\n"])
def test_where_the_kernel_does_not_tell_there_is_none(machine: Machine, text: str) -> None:
    machine.path.write_text(text)
    assert not machine.spare().is_enough()
    machine.path.unlink()
    assert not machine.spare().is_enough()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="this kernel tells nothing")
def test_this_kernel_is_understood() -> None:
    spare = SpareTime()
    assert spare._read() is not None
    assert spare._read() > (0, 0)
