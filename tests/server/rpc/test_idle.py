import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flyweight.server.rpc import carrier
from flyweight.server.rpc.admission import Gate
from flyweight.server.rpc.carrier import Carrier
from flyweight.server.rpc.idle import IdleTrim
from flyweight.server.settings import ServerSettings

LIVE = "/inference.GRPCInferenceService/ServerLive"


class Stage:
    """A gate, a clock that stands still, and how often the heap was trimmed."""

    def __init__(self) -> None:
        self.now, self.trims, self.gate = 100.0, 0, Gate(4)
        self.gate.open()
        self.idle = IdleTrim(self.gate, self.trim, lambda: self.now, lambda trim: trim())

    def trim(self) -> None:
        self.trims += 1

    def look_after(self, seconds: float) -> int:
        self.now += seconds
        self.idle.look()
        return self.trims


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_a_server_that_never_worked_trims_nothing(stage: Stage) -> None:
    assert [stage.look_after(60) for _ in range(3)] == [0, 0, 0]


def test_it_trims_once_after_each_time_of_work(stage: Stage) -> None:
    for trims in (1, 2):
        stage.gate.enter()
        stage.gate.leave()
        stage.look_after(0.2)
        assert stage.look_after(4.9) == trims - 1
        assert stage.look_after(0.2) == trims
        assert stage.look_after(60) == trims


def test_a_request_meanwhile_begins_the_wait_anew(stage: Stage) -> None:
    for _ in range(10):
        stage.gate.enter()
        stage.gate.leave()
        assert stage.look_after(4.9) == 0


def test_it_trims_nothing_while_a_request_is_inside(stage: Stage) -> None:
    stage.gate.enter()
    assert [stage.look_after(60) for _ in range(3)] == [0, 0, 0]
    stage.gate.leave()
    assert stage.look_after(1) == 0
    assert stage.look_after(5) == 1


def test_the_carrier_looks_while_nothing_happens(
    build: Callable[..., Any], poll: Callable[[Callable[[], bool]], None]
) -> None:
    bench = build()
    looks: list[float] = []
    settings = ServerSettings(Path("unused"), port=0)
    carrier = Carrier(settings, bench.methods, bench.scheduler)
    carrier.while_idle(lambda: looks.append(time.monotonic()))
    carrier.bind()
    carrier.start()
    try:
        poll(lambda: len(looks) > 1)
    finally:
        carrier.stop(0)


def test_a_thread_that_is_stuck_is_not_live(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    served.call(LIVE)
    assert served.carrier.is_live()
    monkeypatch.setattr(carrier, "_STUCK_SECONDS", 0.0)
    assert not served.carrier.is_live()
