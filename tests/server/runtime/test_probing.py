"""Real processes, of a model of a few bytes; what they measure is compared in tests/system."""

import itertools
import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flyweight.server.runtime.priming import EMPTY_MODEL
from flyweight.server.runtime.probing import Prober
from flyweight.server.runtime.seam import SessionSettings

PATIENCE_SECONDS = 60
SETTINGS = SessionSettings()


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(EMPTY_MODEL)
    return path


@pytest.fixture
def prober() -> Iterator[Prober]:
    prober = Prober(cores=1)
    yield prober
    prober.close()


def test_a_model_is_measured(prober: Prober, model_file: Path) -> None:
    probing = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    assert probing.growth is not None
    assert 0 <= probing.growth.uss_bytes < 8 << 20


def test_the_same_model_is_measured_once(
    prober: Prober, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    monkeypatch.setattr("subprocess.Popen", None)
    second = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    assert second.growth is first.growth is not None


def test_another_setting_is_another_question(prober: Prober, model_file: Path) -> None:
    first = prober.ask(model_file, SETTINGS)
    second = prober.ask(model_file, SessionSettings(config_entries={"session.disable_prepacking": "1"}))
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    assert first.growth is not None
    assert second.growth is not None
    assert second.growth is not first.growth


def test_a_file_that_is_no_model_has_no_figures(
    prober: Prober, model_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    model_file.write_bytes(b"no model")
    probing = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    assert probing.growth is None
    assert f"{model_file} was not measured in a process of its own" in caplog.text


def test_a_file_that_vanished_has_no_figures_and_ends_nothing(prober: Prober, model_file: Path) -> None:
    lost = prober.ask(model_file.parent / "gone" / "model.onnx", SETTINGS)
    there = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    assert lost.growth is None
    assert there.growth is not None


def test_nothing_is_measured_for_which_there_is_no_room(
    model_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    prober = Prober(cores=1, free_bytes=lambda: 1 << 20)
    probing = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    prober.close()
    assert probing.growth is None
    assert "it may take 64 MB, and 1 MB are free" in caplog.text


def test_a_process_that_takes_too_long_is_ended(model_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    prober = Prober(cores=1, timeout_seconds=0.0)
    probing = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    prober.close()
    assert probing.growth is None
    assert "it took longer than 0 s" in caplog.text


def test_a_question_that_nobody_asks_any_more_starts_no_process(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()

    def no_room_but_for_nobody() -> int:
        assert go_on.wait(PATIENCE_SECONDS)
        return 0

    prober = Prober(cores=1, free_bytes=no_room_but_for_nobody)
    prober.ask(model_file, SETTINGS)
    waiting = prober.ask(model_file, SETTINGS)
    waiting.cancel()
    waiting.cancel()
    go_on.set()
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    prober.close()
    monkeypatch.setattr("subprocess.Popen", None)
    assert waiting.run(1, PATIENCE_SECONDS) is None
    assert waiting.growth is None


def entries(number: int) -> SessionSettings:
    """Return settings of which every number is another question."""
    return SessionSettings(config_entries={"session.dynamic_block_base": str(number)})


def test_beside_traffic_the_next_process_waits_for_its_time(model_file: Path) -> None:
    calls, seconds, looks = itertools.count(), [0.0], threading.Semaphore(0)

    def count_calls() -> int:
        looks.release()
        return next(calls)

    prober = Prober(cores=1, count_calls=count_calls, clock=lambda: seconds[0])
    prober.ask(model_file, entries(1))
    assert prober.wait_until_idle(PATIENCE_SECONDS), "the first waits for nothing"
    second = prober.ask(model_file, entries(2))
    for _ in range(4):
        assert looks.acquire(timeout=PATIENCE_SECONDS)
    assert second.growth is None
    seconds[0] = 31.0
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    prober.close()
    assert second.growth is not None


def test_without_traffic_nobody_waits(model_file: Path) -> None:
    prober = Prober(cores=1, count_calls=lambda: 7, clock=lambda: 0.0)
    probings = [prober.ask(model_file, entries(number)) for number in range(2)]
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    prober.close()
    assert all(probing.growth is not None for probing in probings)


@pytest.mark.parametrize("end", ["cancel", "close"])
def test_who_waits_for_a_pause_may_be_told_to_stop(model_file: Path, end: str) -> None:
    calls = itertools.count()
    prober = Prober(cores=1, count_calls=lambda: next(calls), clock=lambda: 0.0)
    prober.ask(model_file, entries(1))
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    second = prober.ask(model_file, entries(2))
    if end == "cancel":
        second.cancel()
    else:
        prober.close()
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    prober.close()
    assert second.growth is None


def test_closing_ends_the_process_that_works_and_answers_nothing_more(model_file: Path) -> None:
    prober = Prober(cores=1)
    probings = [
        prober.ask(model_file, SessionSettings(config_entries={"session.disable_prepacking": number}))
        for number in "01"
    ]
    prober.close()
    after = prober.ask(model_file, SETTINGS)
    assert prober.wait_until_idle(PATIENCE_SECONDS)
    assert after.growth is None
    assert probings[-1].growth is None
