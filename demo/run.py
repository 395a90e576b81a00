"""The demo as one readable list: data, training, compression, serving under traffic, report."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from demo import live, observations, outcome
from demo.compression import QUICK_NOTE, compress_task
from demo.errors import DemoError
from demo.progress import Steps
from demo.server_process import command_for, serving
from demo.settings import DemoSettings
from demo.split import BASELINE, choose_cast, write_split
from demo.tasks import load_task
from demo.training import train_task
from flyweight.compressor.data import DataSet

# Static int8, dynamic int8, fp16, pruned, pruned and int8, distilled: fewer is less than promised.
_KINDS = 6
# Seconds of traffic before the hot load, and again after it.
_SECONDS, _QUICK_SECONDS = 8.0, 1.5


def run(settings: DemoSettings, console: Console) -> None:
    """Run the demo from nothing to the report.

    Raises:
        DemoError: something it promises did not come about.
        FlyweightError: a part of flyweight could not do its work.
    """
    _clear(settings)
    steps = Steps(console)
    if settings.quick:
        console.print(QUICK_NOTE, style="yellow")
    with steps.step(f"data: {settings.source.value}"):
        task = load_task(settings)
    if not task.trained:
        with steps.step(f"training the baseline on {task.training.samples:,} samples"):
            train_task(task, settings, steps)
    with steps.step("compressing, and measuring every variant"):
        document = compress_task(task, settings, steps)
    _check_kinds(document)
    with (
        _prepared(document, settings, task.evaluation) as experiment,
        steps.step(f"serving live traffic, hot-loading {experiment.cast.latecomer}"),
        serving(command_for(settings.repository), settings.out / "server.log") as server,
    ):
        observed = live.run_experiment(experiment, server, steps)
    # The report first: it also shows a run in which something failed.
    document["serving"] = observations.serving_part(experiment, observed)
    outcome.write_outcome(document, settings)
    outcome.tell(document, settings, console)
    observations.check(experiment, observed)


def _clear(settings: DemoSettings) -> None:
    """Remove what an earlier run left, and only that."""
    try:
        settings.out.mkdir(parents=True, exist_ok=True)
        for folder in (settings.repository, _held_back(settings)):
            if folder.exists():
                shutil.rmtree(folder)
        for file in (settings.report, settings.summary):
            file.unlink(missing_ok=True)
    except OSError as error:
        raise DemoError(
            f"{settings.out} cannot be written ({error.strerror or error}); give another folder with --out."
        ) from error


def _held_back(settings: DemoSettings) -> Path:
    """Where the latecomer waits: beside the repository, so that one rename brings it in."""
    return settings.out / "held-back"


def _check_kinds(document: dict[str, Any]) -> None:
    measured = [v["name"] for v in document["variants"] if v["name"] != BASELINE and v.get("bytes")]
    if len(measured) < _KINDS:
        told = "; ".join(outcome.refusals(document)) or "no reason was given"
        raise DemoError(f"Only {len(measured)} of {_KINDS} kinds of variant could be made ({told}).")


@contextmanager
def _prepared(document: dict[str, Any], settings: DemoSettings, data: DataSet) -> Iterator[live.Experiment]:
    """Take the latecomer out of the repository, and write the opening split.

    When the block ends before the latecomer was published, however it ends, it is put back.
    """
    published = [variant["name"] for variant in document["variants"] if variant["published"]]
    cast = choose_cast([name for name in published if name != BASELINE])
    folder, held_back = settings.repository / settings.model, _held_back(settings) / cast.latecomer
    seconds = _QUICK_SECONDS if settings.quick else _SECONDS
    held_back.parent.mkdir(parents=True)
    try:
        (folder / cast.latecomer).rename(held_back)
        write_split(folder, cast.opening())
        yield live.Experiment(settings.model, folder, held_back, cast, data, seconds, settings.seed)
    finally:
        if held_back.exists():
            held_back.rename(folder / cast.latecomer)
        held_back.parent.rmdir()
