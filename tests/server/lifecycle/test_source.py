import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from flyweight.server.lifecycle.source import Emission, Source

if TYPE_CHECKING:
    from conftest import Bench


@pytest.fixture
def emissions() -> list[Emission]:
    return []


def test_scans_are_numbered(bench: "Bench", emissions: list[Emission]) -> None:
    source = Source(bench.root, 0.4, emissions.append, bench.clock)
    assert source.next_number == 1
    source.read()
    source.read()
    assert [emission.number for emission in emissions] == [1, 2]
    assert source.next_number == 3


def test_a_scan_too_soon_after_the_last_confirms_nothing(
    bench: "Bench", emissions: list[Emission], plain_repository: Path
) -> None:
    source = Source(bench.root, 0.4, emissions.append, bench.clock)
    for seconds in (0.0, 0.1, 0.1, 0.1):
        bench.clock.seconds += seconds
        source.read()
        assert emissions[-1].changing == {"plain"}
    bench.clock.seconds += 0.1
    source.read()
    assert not emissions[-1].changing
    assert sorted(emissions[-1].snapshot.models["plain"].variants) == ["1", "2"]


def test_what_nobody_touched_for_a_while_is_believed_at_the_first_scan(
    bench: "Bench", emissions: list[Emission], plain_repository: Path
) -> None:
    Source(bench.root, 0.4, emissions.append, bench.clock, lambda: time.time_ns() + 11 * 10**9).read()
    assert not emissions[-1].changing
    assert sorted(emissions[-1].snapshot.models["plain"].variants) == ["1", "2"]


def test_a_repository_that_went_away_leaves_the_last_snapshot(
    bench: "Bench", emissions: list[Emission], repository: Path
) -> None:
    source = Source(bench.root, 0.4, emissions.append, bench.clock)
    source.read()
    repository.rename(repository.with_name("away"))
    source.read()
    before, after = emissions
    assert after.snapshot == before.snapshot
    assert "cannot be read" in after.error
    repository.with_name("away").rename(repository)
    source.read()
    assert emissions[-1].error == ""


def test_a_repository_that_changes_all_the_time_is_read_on(
    bench: "Bench", emissions: list[Emission], tiny_model: Any
) -> None:
    source = Source(bench.root, 0.4, emissions.append, bench.clock)
    for scale in range(5):
        tiny_model(bench.root / "plain" / "1" / "model.onnx", float(scale), ("n", scale + 1))
        bench.clock.seconds += 0.5
        source.read()
        assert not emissions[-1].snapshot.models or not emissions[-1].snapshot.models["plain"].variants


def test_a_change_is_confirmed_so_long_after_it_was_seen_and_no_later(
    bench: "Bench", emissions: list[Emission], publish: Any
) -> None:
    """Whenever the scans before it were: a new model, seen soon after a scan, is believed 0.5 s later."""
    source = Source(bench.root, 0.5, emissions.append, bench.clock)
    source.read()
    bench.clock.seconds += 0.125
    publish("baseline", 2.0)
    source.read()
    assert emissions[-1].changing == {"tiny"}
    assert source.seconds_to_confirm() == 0.375, "for how it looked before"
    bench.clock.seconds += 0.375
    source.read()
    assert source.seconds_to_confirm() == 0.125
    bench.clock.seconds += 0.125
    source.read()
    assert not emissions[-1].changing
    assert source.seconds_to_confirm() is None
    assert list(emissions[-1].snapshot.models) == ["tiny"]


def test_a_scan_that_takes_long_does_not_miss_the_moment_to_confirm(
    bench: "Bench", emissions: list[Emission], publish: Any
) -> None:
    source = Source(bench.root, 0.5, emissions.append, bench.clock)
    publish("baseline", 2.0)
    source.read()
    source.read()
    bench.clock.seconds += 3.0
    assert source.seconds_to_confirm() is None, "the first scan believes texts as they are"
    publish("baseline", 2.0, model="other")
    source.read()
    bench.clock.seconds += 3.0
    assert source.seconds_to_confirm() == 0.0


def test_what_rests_is_confirmed_while_something_else_never_does(
    bench: "Bench", emissions: list[Emission], publish: Any, tiny_model: Any
) -> None:
    source = Source(bench.root, 0.4, emissions.append, bench.clock)
    source.read()
    publish("baseline", 2.0)
    for step in range(200):
        tiny_model(bench.root / "plain" / "1" / "model.onnx", 1.0, ("n", step + 1))
        bench.clock.seconds += 0.01
        source.read()
    assert list(emissions[-1].snapshot.models["tiny"].variants) == ["baseline"]
    assert emissions[-1].changing == {"plain"}
    assert len(source._looks) <= 65
