"""A study: the trials of one search, kept where a killed process leaves them, shared by all its workers.

By default an SQLite file in the work folder; with `postgresql://` a database that many machines share. What
was finished is never done again; a trial whose process died is repeated.
"""

import fcntl
import json
import os
import re
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flyweight.compressor.foreign import run_foreign
from flyweight.compressor.search.extra import SearchError, optuna_module, quiet_optuna

if TYPE_CHECKING:
    from optuna import Study as OptunaStudy
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, Trial

    from flyweight.compressor.search.sampler_settings import SamplerSettings
    from flyweight.compressor.search.space import Genes, Parameter

FILE_NAME: Final = "study.db"
OBJECTIVES: Final = ("latency", "size", "quality loss")
# Long enough that a machine under load is not taken for dead, short beside the training of a variant.
HEARTBEAT_SECONDS: Final = 20
# Who dies twice of the same genes is killed by them: out of memory, say.
_MOST_DEATHS: Final = 2
# Another process holds the file for milliseconds; a machine under load may stop it in between.
_LOCKED_SECONDS: Final = 60.0
# How soon a worker that waits for the others sees that they are done.
_WAITING_SECONDS: Final = 0.5
_IDENTITY: Final = "flyweight:"
_STOPPED: Final = "stopped"
_ABORTED: Final = "It was not measured: its process died twice while this was tried."


@dataclass(frozen=True, slots=True)
class StudyPlace:
    """Where a study is.

    Attributes:
        folder: for its file, where there is no `url`; made when it is not there.
        url: of a database, `postgresql://user@host/database`.
        name: of the study in it.
        heartbeat_seconds: between the signs of life of a running trial; without one for twice as long it is
            given to somebody else.
    """

    folder: Path
    url: str | None = None
    name: str = "flyweight"
    heartbeat_seconds: int = HEARTBEAT_SECONDS


@dataclass(frozen=True, slots=True)
class Score:
    """What one trial came to.

    Attributes:
        values: of the three objectives, less is better.
        misses: by how much each bound of the budget is missed; above 0 is a miss.
        told: everything else worth keeping, in the types that JSON has.
    """

    values: tuple[float, float, float]
    misses: Mapping[str, float]
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """A trial that is done, as the study keeps it."""

    number: int
    genes: Mapping[str, int]
    score: Score


Objective = Callable[["Genes"], Score]


class _OneTooManyError(Exception):
    """Enough trials were begun before this one."""


class Study:
    """An open study; used from one thread of one process. Others may have it open at the same time."""

    def __init__(
        self,
        place: StudyPlace,
        identity: Mapping[str, str],
        parameters: "Sequence[Parameter]",
        settings: "SamplerSettings",
        starters: "Sequence[Genes]" = (),
    ) -> None:
        """Open a study, or begin it.

        Args:
            place: where it is.
            identity: what it is a study of, by the words a reader is told when another is found there.
            parameters: the genes.
            settings: how they are proposed.
            starters: what is tried first.

        Raises:
            SearchError: Optuna is not installed, the storage cannot be opened, or holds a study of something
                else.
        """
        self._optuna = optuna_module()
        from flyweight.compressor.search.sampler import RepeatableSampler

        self.place = place
        self._parameters = tuple(parameters)
        self._identity = {
            **identity,
            "search": f"{settings.algorithm}, seed {settings.seed}, {settings.population} a generation",
        }
        # Held as long as the study is open: who gets it alone knows that nobody else is alive.
        self._presence = _presence(place)
        self._storage: Any = None
        try:
            self._open(RepeatableSampler(parameters, settings, starters))
        except SearchError:
            self.close()
            raise
        self._presence.share()

    def _open(self, sampler: "BaseSampler") -> None:
        place = self.place

        def opened() -> "OptunaStudy":
            self._storage = _storage(place)
            study: OptunaStudy = self._optuna.create_study(
                storage=self._storage,
                study_name=place.name,
                directions=["minimize"] * len(OBJECTIVES),
                sampler=sampler,
                load_if_exists=True,
            )
            return study

        with quiet_optuna():
            self._study = run_foreign(
                opened,
                lambda reason: SearchError(
                    f"The study in {_without_password(place)} cannot be opened ({_masked(reason)}); "
                    f"{_way_out(place)}."
                ),
            )
            self._check_identity()
            if self._presence.alone:
                self._give_up_lost()

    def run(self, objective: Objective, trials: int, stop: Callable[[], bool]) -> None:
        """Try until the study holds `trials` finished trials, or `stop` says so.

        Raises:
            KeyboardInterrupt: the study holds what was finished, and can be gone on with.
            CompressorError: what `objective` raised; its trial is repeated when the study goes on.
        """
        with quiet_optuna():
            while not stop() and len(self._trials("COMPLETE")) < trials:
                self._check_identity()
                if len(self._trials("COMPLETE", "RUNNING")) < trials:
                    self._study.optimize(
                        lambda trial: self._try(trial, objective, trials),
                        n_trials=1,
                        catch=(_OneTooManyError,),
                    )
                else:  # others are at the last ones; if one of them dies, its trial is ours
                    self._optuna.storages.fail_stale_trials(self._study)
                    time.sleep(_WAITING_SECONDS)

    def finished(self) -> list[Finished]:
        """Return the trials that are done, by number."""
        return [_read(trial) for trial in self._trials("COMPLETE")]

    def remember(self, name: str, make: Callable[[], Any]) -> Any:
        """Return what the study knows by this name; the first to ask makes it, in the types that JSON has."""
        known = self._study.user_attrs
        if name not in known:
            self._study.set_user_attr(name, make())
            known = self._study.user_attrs
        return known[name]

    def close(self) -> None:
        """Let others know that this process does not use the study any more, and close its connections."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
            self._storage = None
        self._presence.leave()

    def _try(self, trial: "Trial", objective: Objective, trials: int) -> tuple[float, ...]:
        genes = {parameter.name: _drawn(trial, parameter) for parameter in self._parameters}
        # Who looks at the same moment begins at the same moment; the numbers say who was first.
        if sum(other.number < trial.number for other in self._trials("COMPLETE", "RUNNING")) >= trials:
            trial.set_user_attr(_STOPPED, value=True)
            raise _OneTooManyError
        if self._deaths(genes) >= _MOST_DEATHS:
            score = Score((10.0, 10.0, 1.0), {"alive": 1.0}, {"error": _ABORTED})
        else:
            try:
                score = objective(genes)
            except BaseException:
                # Not the trial's fault: it is repeated as it was.
                trial.set_user_attr(_STOPPED, value=True)
                raise
        trial.set_user_attr("told", json.dumps(dict(score.told)))
        for axis, miss in score.misses.items():
            trial.set_constraint(axis, miss)
        return score.values

    def _deaths(self, genes: Mapping[str, int]) -> int:
        lost = (trial for trial in self._trials("FAIL") if _STOPPED not in trial.user_attrs)
        return sum({name: int(value) for name, value in trial.params.items()} == genes for trial in lost)

    def _give_up_lost(self) -> None:
        for trial in self._trials("RUNNING"):
            self._study.tell(trial.number, state=self._optuna.trial.TrialState.FAIL)

    def _trials(self, *states: str) -> "list[FrozenTrial]":
        kinds = tuple(self._optuna.trial.TrialState[state] for state in states)
        return self._study.get_trials(deepcopy=False, states=kinds)

    def _check_identity(self) -> None:
        found = self._study.user_attrs
        for name, value in self._identity.items():
            key = f"{_IDENTITY}{name}"
            if key not in found:
                self._study.set_user_attr(key, value)
            elif found[key] != value:
                raise SearchError(
                    f"The study {self.place.name!r} in {_without_password(self.place)} was made for another "
                    f"{name}; name another study, or remove it."
                )


def _drawn(trial: "Trial", parameter: "Parameter") -> int:
    if parameter.ordered:
        return trial.suggest_int(parameter.name, 0, parameter.count - 1)
    return int(trial.suggest_categorical(parameter.name, range(parameter.count)))


def _read(trial: "FrozenTrial") -> Finished:
    values = trial.values
    told = json.loads(trial.user_attrs["told"])
    genes = {name: int(value) for name, value in trial.params.items()}
    return Finished(
        trial.number, genes, Score((values[0], values[1], values[2]), dict(trial.constraints), told)
    )


def _storage(place: StudyPlace) -> Any:
    optuna = optuna_module()
    if place.url is None:
        place.folder.mkdir(parents=True, exist_ok=True)
        file = place.folder / FILE_NAME
        url, arguments = f"sqlite:///{file}", {"creator": lambda: _connection(file)}
    else:
        url, arguments = _driver(place.url), dict[str, Any]()
    return optuna.storages.RDBStorage(
        url,
        engine_kwargs=arguments,
        heartbeat_interval=place.heartbeat_seconds,
        grace_period=2 * place.heartbeat_seconds,
        heartbeat_stale_trial_callback=optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=1),
    )


def _connection(file: Path) -> sqlite3.Connection:
    """Return a connection that does not wait for the disk at every step of a trial.

    With a write-ahead log a killed process loses nothing; a machine that loses power, the last trials maybe.
    """
    connection = sqlite3.connect(file, timeout=_LOCKED_SECONDS, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def _driver(url: str) -> str:
    """Name the driver that the extra installs.

    Raises:
        SearchError: the address is of another kind of database.
    """
    kind, separator, rest = url.partition("://")
    if not separator or kind not in {"postgresql", "postgres", "postgresql+psycopg"}:
        raise SearchError(
            f"A shared study lies in PostgreSQL: write postgresql://user@host/database, not {_masked(url)!r}."
        )
    try:
        import psycopg  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise SearchError(
            "A shared study needs psycopg, which is not installed; install flyweight[search]."
        ) from error
    return f"postgresql+psycopg://{rest}"


class _Presence:
    """A lock on the study's file that every process with the study open shares; nothing for a database."""

    def __init__(self, path: Path | None) -> None:
        self.alone = False
        self._descriptor = -1
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except BlockingIOError:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def share(self) -> None:
        """Let others in, once what the dead left is cleared away."""
        if self.alone:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Give the lock back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _presence(place: StudyPlace) -> _Presence:
    return _Presence(None if place.url is not None else place.folder / f"{FILE_NAME}.lock")


def _without_password(place: StudyPlace) -> str:
    return str(place.folder / FILE_NAME) if place.url is None else _masked(place.url)


def _way_out(place: StudyPlace) -> str:
    """Return what a reader can do about a study that cannot be opened."""
    if place.url is not None:
        return "check that the database runs, and that its name, user and password are right"
    if (place.folder / FILE_NAME).exists():
        return "remove that file to begin anew, or name another folder with --work-dir"
    return "make room there, or name a folder that you may write with --work-dir"


def _masked(text: str) -> str:
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)
