"""How a worker's end is told."""

import signal

import pytest

from flyweight.server.runtime.process.child import ending_of


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (0, "ended with code 0"),
        (70, "ended with code 70"),
        (-signal.SIGKILL, "was killed by SIGKILL"),
        (-(signal.SIGRTMIN + 1), f"was killed by signal {signal.SIGRTMIN + 1}"),
    ],
)
def test_an_end_is_told_by_the_name_of_the_signal_if_it_has_one(status: int, told: str) -> None:
    assert ending_of(status) == told
