"""The command `flyweight check`: everything in a repository is loaded, and what is wrong with it told."""

import json
from pathlib import Path
from typing import Final

import click

from flyweight.server.checking import CheckReport, check_repository, refuse_mistaken_path
from flyweight.server.logs import configure_logging
from flyweight.server.serve_options import Seconds
from flyweight.server.settings import LogFormat, LogLevel

_FAULTY: Final = 2


@click.command(
    epilog="""\b
Examples:
  flyweight check repository
  flyweight check repository --json | jq .faults
"""
)
@click.argument("repository", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option(
    "--timeout",
    "timeout_seconds",
    type=Seconds(0.0, min_open=True),
    default=300.0,
    show_default=True,
    help="Seconds that loading everything may take.",
)
def check(repository: Path, *, as_json: bool, timeout_seconds: float) -> int:
    """Load everything in REPOSITORY as the server would, and say what is wrong with it.

    Digests, manifests, models, golden outputs, config.pbtxt and traffic.yaml are looked at. The exit code is
    0 when all is well, and 2 with a sentence on standard error for each fault. A variant that can be served
    but does not come from where its manifest says, or was measured on another processor, is a warning; what a
    config.pbtxt asks for and has no meaning here is a note.
    """
    # The report says what a server's log would; what is left is bugs of ours.
    configure_logging(LogFormat.TEXT, LogLevel.ERROR)
    refuse_mistaken_path(repository)
    report = check_repository(repository, timeout_seconds)
    if as_json:
        click.echo(json.dumps(report.document(), indent=2))
    else:
        _print(report)
    return _FAULTY if report.faults else 0


def _print(report: CheckReport) -> None:
    for variant in report.variants:
        click.echo(
            f"{variant.model}/{variant.variant}: {variant.role}, {variant.share:.0%} of the traffic, "
            f"{variant.file_bytes:,} bytes"
        )
    for warning in report.warnings:
        click.echo(f"flyweight: warning: {warning}", err=True)
    for note in report.notes:
        click.echo(f"flyweight: note: {note}", err=True)
    for fault in report.faults:
        click.echo(f"flyweight: error: {fault}", err=True)
    if not report.faults:
        click.echo(f"{report.repository} is fine: {len(report.variants)} variants can be served.")
