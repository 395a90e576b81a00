"""Signals: when they stop the work, and when they wait."""

import os
import signal

import pytest

from flyweight.compressor.stopping import orderly_termination, undisturbed


def signal_within(done: list[str]) -> None:
    with undisturbed():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("all")


def terminate_within(done: list[str]) -> None:
    with orderly_termination():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            done.append("cleaned up")


def test_ctrl_c_waits_until_the_block_is_done_and_then_comes() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        signal_within(done)
    assert done == ["all"]


def test_sigterm_unwinds_the_block() -> None:
    done: list[str] = []
    with pytest.raises(SystemExit) as ended:
        terminate_within(done)
    assert ended.value.code == 143
    assert done == ["cleaned up"]


def test_the_handlers_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with undisturbed(), orderly_termination():
        pass
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
