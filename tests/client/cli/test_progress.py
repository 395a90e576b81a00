"""Progress: shown late, and to people only."""

import io

from flyweight.client.cli.progress import track


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def clock(step: float) -> object:
    times = iter(range(1000))
    return lambda: next(times) * step


def shown(stream: io.StringIO, step: float) -> str:
    assert list(track(range(10), 10, "rows", stream=stream, clock=clock(step))) == list(range(10))  # type: ignore[arg-type]
    return stream.getvalue()


def test_short_work_shows_nothing() -> None:
    assert shown(Terminal(), 0.1) == ""


def test_long_work_shows_how_far_it_is_and_cleans_up() -> None:
    text = shown(Terminal(), 1.0)
    assert "1/10 rows" in text
    assert "9/10 rows, about 1 s left" in text
    assert text.endswith("\r\x1b[K")


def test_nothing_is_shown_where_nobody_looks() -> None:
    assert shown(io.StringIO(), 1.0) == ""
