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
