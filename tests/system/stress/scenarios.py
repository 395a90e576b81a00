"""The stress format: who asks, what happens meanwhile, and which statuses must and may be seen."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from time import monotonic

from tests.system.stress.callers import Crowd, Group
from tests.system.stress.serving import PATIENCE_SECONDS, Served, eventually, serving

# How long each scenario goes on at least; a night's run sets it to minutes.
SECONDS = float(os.environ.get("FLYWEIGHT_STRESS_SECONDS", "1.0"))
SEED = int(os.environ.get("FLYWEIGHT_STRESS_SEED", "1"))


@dataclass
class Stage:
    """What a scenario acts on."""

    served: Served
    crowd: Crowd
    random: Random
    round: int = 0
    notes: dict[str, float] = field(default_factory=dict)

    @property
    def repository(self) -> Path:
        return self.served.repository

    def pause(self, most_seconds: float = 0.1) -> None:
        """Let a random time pass."""
        caller = self.crowd.callers[0]
        caller.stopping.wait(self.random.uniform(0, most_seconds))

    def await_more(self, group: str, count: int = 20) -> None:
        """Wait until a group has heard of so many more of its requests."""
        ledger = self.crowd.ledgers[group]
        assert ledger.await_more(count, PATIENCE_SECONDS), f"{group} hears nothing any more: {ledger}"

    def await_code(self, group: str, code: str) -> None:
        """Wait until a group sees a status from now on."""
        ledger = self.crowd.ledgers[group]
        before = ledger.codes[code]
        assert ledger.await_that(lambda seen: seen.codes[code] > before, PATIENCE_SECONDS), (code, ledger)

    def await_variant(self, group: str, variant: str) -> None:
        """Wait until a variant answers a group from now on."""
        ledger = self.crowd.ledgers[group]

        def count() -> int:
            return sum(number for (name, _), number in ledger.variants.items() if name == variant)

        before = count()
        assert ledger.await_that(lambda _: count() > before, PATIENCE_SECONDS), (variant, ledger)


def _nothing(_stage: Stage) -> None:
    _stage.pause()


def _no_check(_stage: Stage) -> None:
    pass


@dataclass(frozen=True)
class Scenario:
    """One row of the table.

    `prepare` fills the repository, `meanwhile` is done again and again while the groups ask, and `after`
    looks at what is left once they have ended.
    """

    name: str
    prepare: Callable[[Path], None]
    groups: tuple[Group, ...]
    meanwhile: Callable[[Stage], None] = _nothing
    after: Callable[[Stage], None] = _no_check
    options: tuple[str, ...] = ()
    least_rounds: int = 1

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


def play(scenario: Scenario, folder: Path) -> Stage:
    """Play a scenario, and check that every request is accounted for by a status that it allows."""
    repository = folder / "repository"
    repository.mkdir()
    scenario.prepare(repository)
    with (
        serving(repository, *scenario.options, folder=folder) as served,
        Crowd(served.address, scenario.groups, SEED) as crowd,
    ):
        stage = Stage(served, crowd, Random(SEED))
        began = monotonic()
        while _goes_on(stage, scenario, monotonic() - began):
            scenario.meanwhile(stage)
            stage.round += 1
        crowd.stop()
        crowd.check()
        scenario.after(stage)
        assert served.is_alive()
        assert served.tracebacks() == []
        _check_nothing_is_held(served)
    return stage


def _goes_on(stage: Stage, scenario: Scenario, seconds: float) -> bool:
    if seconds > PATIENCE_SECONDS + SECONDS:
        return False
    is_complete = all(ledger.is_complete for ledger in stage.crowd.ledgers.values())
    return seconds < SECONDS or stage.round < scenario.least_rounds or not is_complete


def _check_nothing_is_held(served: Served) -> None:
    """The callers have their answers; soon the server holds nothing for them either."""
    eventually(
        lambda: served.total("flyweight_requests_in_flight"),
        lambda held: held == 0,
        "requests that nobody waits for are still held",
    )
