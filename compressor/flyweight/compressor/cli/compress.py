"""The command `flyweight compress`."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click

from flyweight.compressor.cli.durations import Duration
from flyweight.compressor.cli.grouping import GroupedCommand, argument_under, options_under
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.options import TRIALS
from flyweight.compressor.records import RECORD_FILE, record_folder
from flyweight.compressor.stopping import Stopped, leave_at_exit, prompt_stop

if TYPE_CHECKING:
    from flyweight.compressor.data import DataSet
    from flyweight.compressor.gate import Limits
    from flyweight.compressor.model import Model
    from flyweight.compressor.options import Options
    from flyweight.compressor.outcome import CompressionReport
    from flyweight.compressor.passes.base import Pass

_PATH: Final = click.Path(path_type=Path)
_INTERRUPTED: Final = 130
_REPORT: Final = "report.html"
_STOPPED: Final = (
    "Stopped; what was found until then is published and kept, and the same command goes on from there."
)
_STOPPED_EARLY: Final = (
    "Stopped before anything was published; what was finished is kept, and the same command goes on from "
    "there."
)
# Some file systems keep times in whole seconds, or two.
_CLOCK_SECONDS: Final = 2.0

# \b keeps click from folding the lines that follow it.
_EPILOG = """\b
Examples:
  flyweight compress model.onnx --data samples.npz --out repository --name mynet
  flyweight compress model.onnx --data samples.npz --out repository --name mynet \\
      --budget "latency<=50%, size<=25%, accuracy>=-0.5pt"
  flyweight compress --module package.module:factory --weights w.safetensors \\
      --train train.npz --data eval.npz --out repository --name mynet

Exit code 0 when it worked, whatever was published; 2 on bad input; 130 after Ctrl-C and 143 after SIGTERM,
with what was found until then published and kept: the same command goes on from there.
"""

_WHAT: Final = "What to compress"
_what = options_under(_WHAT)
_how = options_under("How to compress")
_limit = options_under("What a variant may cost")
_measure = options_under("How to measure")
_tell = options_under("What to tell")


@click.command(cls=GroupedCommand, epilog=_EPILOG)
@argument_under(_WHAT, "model", "The ONNX file.", type=_PATH, required=False)
@_what(
    "--module", metavar="PKG.MOD:FACTORY", help="A function that returns a torch module, instead of MODEL."
)
@_what("--weights", type=_PATH, help="The module's weights: .safetensors, or a checkpoint of tensors.")
@_what("--data", type=_PATH, required=True, help="An .npz file, or a folder of them: one array per input.")
@_what("--train", type=_PATH, help="Data in the same format to train on.")
@_what("--out", "repository", type=_PATH, required=True, help="The repository to publish to.")
@_what("--name", required=True, help="What clients will call the model.")
@_how("--recipe", "recipes", type=_PATH, multiple=True, help="A YAML recipe instead of the default ones.")
@_how(
    "--budget",
    metavar="BOUNDS",
    help='Search recipes that reach this, such as "latency<=50%, size<=25%, accuracy>=-0.5pt".',
)
@_how("--trials", type=click.IntRange(1), default=TRIALS, show_default=True, help="Of the search, at most.")
@_how("--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes that search here.")
@_how(
    "--study", metavar="URL", help="Of a database that searches on several machines share: postgresql://..."
)
@_how(
    "--work-dir",
    "work_folder",
    type=_PATH,
    help="Where results are kept between runs.  [default: ~/.cache/flyweight]",
)
@_how(
    "--transfer", is_flag=True, help="Replace the head for the labels' classes and learn them, then compress."
)
@_how("--time-limit", type=Duration(), default="10m", show_default=True, help="Like 90s, 10m, 2h.")
@_how(
    "--calibration-samples", type=click.IntRange(1), default=512, show_default=True, help="At most so many."
)
@_how("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@_limit(
    "--max-drop",
    type=float,
    help="Largest drop of quality, relative to the model's.  [default: 0.01; agreement: 0.02]",
)
@_limit("--max-slowdown", type=float, default=1.1, show_default=True, help="Largest latency ratio.")
@_limit("--max-bytes-ratio", type=float, default=1.0, show_default=True, help="Largest file size ratio.")
@_limit("--min-gain", type=float, default=0.05, show_default=True, help="Least gain on one axis.")
@_measure("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads in an operator.")
@_measure(
    "--seconds-per-point",
    type=click.FloatRange(min=0.05),
    default=1.0,
    show_default=True,
    help="Of timing, for each batch size of each variant.",
)
@_measure(
    "--examine",
    type=click.Choice(["no", "briefly", "thoroughly"]),
    default="briefly",
    show_default=True,
    help="Disturbed inputs, trigger patches, long runs, explanations of what is published: not, for up to "
    "20 seconds each, or for minutes and with more batches and threads.",
)
@_measure("--output", help="The output that labels are compared with.  [default: the first that fits]")
@_measure(
    "--agreement",
    type=click.Choice(["auto", "top1", "values"]),
    default="auto",
    show_default=True,
    help="What the same answer means.",
)
@_tell("--json", "as_json", is_flag=True, help="Print one JSON document instead of the table.")
@_tell(
    "--report",
    "html",
    type=_PATH,
    help="Where the HTML report goes.  [default: .flyweight/report.html beside the variants]",
)
def compress(**given: Any) -> None:  # click passes twenty options by name
    """Compress MODEL.onnx and publish every variant that does no harm.

    Each variant is measured in onnxruntime against the model, on your data. One that is slower, bigger or
    worse than asked, or better nowhere, is not published, and you are told why.
    """
    from flyweight.compressor.terminal import output_kept_clean, print_report, progress_bars

    if (given["model"] is None) == (given["module"] is None):
        raise click.UsageError("Give either MODEL.onnx or --module, and only one of them.")
    if given["weights"] is not None and given["module"] is None:
        raise click.UsageError("--weights belongs to --module; an ONNX file holds its own.")
    if given["budget"] is None and (given["study"] is not None or given["workers"] > 1):
        raise click.UsageError("--study and --workers belong to a search; say what to reach with --budget.")
    if given["budget"] is not None and given["recipes"]:
        raise click.UsageError("Give either --budget or --recipe: the search finds the recipes itself.")
    if given["html"] is not None:
        _require_writable(given["html"].absolute())
    with _stopped_in_time(given):
        with output_kept_clean(), progress_bars() as bars:
            report, stopped = _run(given, bars)
        if given["as_json"]:
            click.echo(json.dumps(report.document(), indent=2, allow_nan=False))
        else:
            print_report(report)
        if stopped:
            click.echo(_STOPPED, err=True)
            raise click.exceptions.Exit(_INTERRUPTED)
        # Last, so that a disk that is full by now costs the pictures and not the figures.
        html = given["html"] or record_folder(report.repository, report.model) / _REPORT
        with output_kept_clean():
            _write_report(report.document(), html)
        click.echo(f"Report with pictures: {html}", err=given["as_json"])


@contextmanager
def _stopped_in_time(given: dict[str, Any]) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM end the block within two seconds, and say what is left of the work."""
    started, told = time.time(), list[str]()

    def tell(sentence: str = "") -> None:
        if told:
            return
        told.append(sentence or (_STOPPED if _recorded_since(given, started) else _STOPPED_EARLY))
        click.echo(told[0], err=True)

    def last_words() -> None:
        if sys.stderr.isatty():
            # The bars can be wiped away no more, and have hidden the cursor.
            click.echo("\r\x1b[J\x1b[?25h", nl=False, err=True)
        tell()

    with prompt_stop(last_words, leave_at_exit):
        try:
            yield
        except KeyboardInterrupt as stop:
            # A search that was stopped says that its trials are kept.
            tell(str(stop))
            raise click.exceptions.Exit(_INTERRUPTED) from None
        except SystemExit:
            tell()
            raise


def _recorded_since(given: dict[str, Any], started: float) -> bool:
    """Return whether this run has published something."""
    try:
        record = record_folder(given["repository"], given["name"]) / RECORD_FILE
        return record.stat().st_mtime >= started - _CLOCK_SECONDS
    except OSError:
        return False


def _require_writable(html: Path) -> None:
    """Refuse a place for the report before minutes of work, as far as one can tell."""
    if not html.parent.is_dir():
        raise click.UsageError(f"--report: the folder {html.parent} does not exist; make it.")
    if html.is_dir() or not os.access(html if html.exists() else html.parent, os.W_OK):
        raise click.UsageError(f"--report: {html} cannot be written; name a file that you may write.")


def _run(given: dict[str, Any], progress: Any) -> "tuple[CompressionReport, bool]":  # see compress
    """Return what came of it, and whether Ctrl-C was pressed before it was done."""
    from flyweight.compressor.compression import compress as run
    from flyweight.compressor.data import load_data

    if given["module"] is not None:
        import_module("torch")
    data = load_data(given["data"])
    try:
        report = run(
            _model(given, data),
            given["budget"] or _recipes(given["recipes"]),
            data=data,
            repository=given["repository"],
            name=given["name"],
            options=_options(given, progress),
        )
    except Stopped as stop:
        return stop.report, True
    return report, False


def _options(given: dict[str, Any], progress: Any) -> "Options":  # see compress
    from flyweight.compressor.data import load_data
    from flyweight.compressor.evaluate.settings import EvaluationSettings
    from flyweight.compressor.options import Options

    return Options(
        training=None if given["train"] is None else load_data(given["train"]),
        limits=_limits(given),
        threads=given["threads"],
        seed=given["seed"],
        calibration_samples=given["calibration_samples"],
        seconds_per_point=given["seconds_per_point"],
        output=given["output"],
        agreement=given["agreement"],
        progress=progress,
        evaluation={
            "no": EvaluationSettings.quick,
            "briefly": EvaluationSettings,
            "thoroughly": EvaluationSettings.thorough,
        }[given["examine"]](),
        explain=given["examine"] != "no",
        transfer=given["transfer"],
        trials=given["trials"],
        workers=given["workers"],
        study=given["study"],
        work_folder=given["work_folder"],
        time_limit_seconds=given["time_limit"],
    )


def _limits(given: dict[str, Any]) -> "Limits":
    from flyweight.compressor.gate import Limits

    return Limits(given["max_drop"], given["max_slowdown"], given["max_bytes_ratio"], given["min_gain"])


def _model(given: dict[str, Any], data: "DataSet") -> "Model | Path":
    if given["module"] is None:
        return cast("Path", given["model"])
    from flyweight.compressor.torch_model import load_module

    return load_module(given["module"], given["weights"], data)


def _recipes(paths: tuple[Path, ...]) -> "dict[str, Pass] | None":
    from flyweight.compressor.recipe import load_recipes

    recipes: dict[str, Pass] = {}
    for path in paths:
        for name, recipe in load_recipes(path).items():
            if name in recipes:
                raise RecipeError(f"Two recipes are called {name!r}, the second in {path}; rename one.")
            recipes[name] = recipe
    return recipes or None


def _write_report(document: dict[str, Any], path: Path) -> None:
    from flyweight.compressor.report import render_report

    render_report(document, path)
