"""The command `flyweight compress`."""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from flyweight.compressor.cli.durations import Duration
from flyweight.compressor.cli.ending import INTERRUPTED, STOPPED, stopped_in_time
from flyweight.compressor.cli.given import model, options, recipes, require_budget, require_writable
from flyweight.compressor.cli.grouping import GroupedCommand, argument_under, options_under
from flyweight.compressor.options import TRIALS
from flyweight.compressor.records import record_folder
from flyweight.compressor.stopping import Stopped

if TYPE_CHECKING:
    from flyweight.compressor.outcome import CompressionReport

_PATH: Final = click.Path(path_type=Path)
_REPORT: Final = "report.html"
# \b keeps click from folding the lines that follow it.
_EPILOG = """\b
Examples:
  flyweight compress model.onnx --data x.npz --out repository --name mynet
  flyweight compress model.onnx --data x.npz --out repository \\
      --name mynet --budget "latency<=50%, size<=25%, accuracy>=-0.5pt"
  flyweight compress --module package.module:factory --weights w.safetensors \\
      --train train.npz --data eval.npz --out repository --name mynet

Exit code 0 when it worked, whatever was published; 2 on bad input; 130 after Ctrl-C and 143 after SIGTERM,
with what was found until then published and kept: the same command goes on from there.
"""

_SLOWDOWN: Final = (
    "Largest latency ratio, at every batch size. Less than 5 microseconds more is always forgiven, and told."
)
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
@_how("--trials", type=click.IntRange(1), default=TRIALS, show_default=True, help="Recipes to try, at most.")
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
@_how("--time-limit", type=Duration(), default="10m", show_default=True, help="For everything; 90s, 10m, 2h.")
@_how(
    "--calibration-samples",
    type=click.IntRange(1),
    default=512,
    show_default=True,
    help="Of --data, at most.",
)
@_how("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@_limit(
    "--max-drop",
    type=float,
    help="Largest drop of quality, relative to the model's.  [default: 0.01; agreement: 0.02]",
)
@_limit("--max-slowdown", type=float, default=1.1, show_default=True, help=_SLOWDOWN)
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
    from flyweight.compressor.table import print_report
    from flyweight.compressor.terminal import output_kept_clean, progress_bars

    if (given["model"] is None) == (given["module"] is None):
        raise click.UsageError("Give either MODEL.onnx or --module, and only one of them.")
    if given["weights"] is not None and given["module"] is None:
        raise click.UsageError("--weights belongs to --module; an ONNX file holds its own.")
    require_budget(given)
    if given["budget"] is not None and given["recipes"]:
        raise click.UsageError("Give either --budget or --recipe: the search finds the recipes itself.")
    if given["html"] is not None:
        require_writable(given["html"].absolute())
    with stopped_in_time(given):
        with output_kept_clean(), progress_bars() as bars:
            report, stopped = _run(given, bars)
        if given["as_json"]:
            click.echo(json.dumps(report.document(), indent=2, allow_nan=False))
        else:
            print_report(report)
        if stopped:
            click.echo(STOPPED, err=True)
            raise click.exceptions.Exit(INTERRUPTED)
        # Last, so that a disk that is full by now costs the pictures and not the figures.
        html = given["html"] or record_folder(report.repository, report.model) / _REPORT
        with output_kept_clean():
            _write_report(report.document(), html)
        click.echo(f"Report with pictures: {html}", err=given["as_json"])


def _run(given: dict[str, Any], progress: Any) -> "tuple[CompressionReport, bool]":  # see compress
    """Return what came of it, and whether Ctrl-C was pressed before it was done."""
    from flyweight.compressor.compression import compress as run
    from flyweight.compressor.data import load_data

    if given["module"] is not None:
        import_module("torch")
    data = load_data(given["data"])
    try:
        report = run(
            model(given, data),
            given["budget"] or recipes(given["recipes"]),
            data=data,
            repository=given["repository"],
            name=given["name"],
            options=options(given, progress),
        )
    except Stopped as stop:
        return stop.report, True
    return report, False


def _write_report(document: dict[str, Any], path: Path) -> None:
    from flyweight.compressor.report import render_report

    render_report(document, path)
