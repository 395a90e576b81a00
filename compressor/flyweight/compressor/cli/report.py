"""The command `flyweight report`."""

from pathlib import Path
from typing import Final

import click

_PATH = click.Path(path_type=Path)

_EPILOG: Final = """\b
Example:
  flyweight report repository --name mynet --out report.html

Exit code 0 when the report was written; 2 when there is nothing to report.
"""


@click.command(epilog=_EPILOG)
@click.argument("repository", type=_PATH)
@click.option("--name", required=True, help="The model.")
@click.option("--out", "html", type=_PATH, required=True, help="The HTML file to write.")
def report(repository: Path, name: str, html: Path) -> None:
    """Draw a report with pictures from what the last run and the manifests of a model in REPOSITORY say.

    A variant that is not what its manifest says, or does not come from the baseline beside it, is told on
    standard error and in the report.
    """
    from flyweight.compressor.published import describe_published
    from flyweight.compressor.report import render_report
    from flyweight.compressor.terminal import output_kept_clean
    from flyweight.protos.variant.lineage import lineage_faults

    document = describe_published(repository, name)
    with output_kept_clean():
        render_report(document, html)
    click.echo(f"Wrote {html}")
    for variant in document["variants"]:
        for fault in lineage_faults(Path(variant["path"])) if variant["path"] else ():
            click.echo(f"flyweight: warning: {fault}", err=True)
