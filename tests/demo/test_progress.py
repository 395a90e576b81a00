import io

import pytest
from rich.console import Console

from demo.progress import Steps


@pytest.mark.parametrize("terminal", [True, False])
def test_a_step_leaves_its_title_and_bars_go_when_they_are_full(*, terminal: bool) -> None:
    written = io.StringIO()
    steps = Steps(Console(file=written, force_terminal=terminal, width=80))
    with steps.step("training"):
        for done in range(3):
            steps("epochs", done, 2)
        steps("epochs", 0, 2)
    assert written.getvalue().splitlines()[-1].endswith("training (0 s)")


def test_progress_outside_a_step_is_ignored() -> None:
    Steps(Console(file=io.StringIO()))("epochs", 1, 2)


def test_an_error_ends_the_bars_and_goes_on() -> None:
    steps = Steps(Console(file=io.StringIO(), force_terminal=True))
    with pytest.raises(KeyboardInterrupt), steps.step("training"):
        raise KeyboardInterrupt
    steps("epochs", 1, 2)
