"""The page: the document's words and pictures in one self-contained HTML file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from flyweight.compressor.report import palette, wording
from flyweight.compressor.report.as_served import draw_served, draw_timeline
from flyweight.compressor.report.closer import Closer, Table, closer_looks, searched
from flyweight.compressor.report.document import Document, ReportError, read_document
from flyweight.compressor.report.drawing import Picture
from flyweight.compressor.report.measured import draw_footprint, draw_latency
from flyweight.compressor.report.tables import (
    SERVED_COLUMNS,
    Row,
    Tile,
    served_rows,
    tiles,
    variant_columns,
    variant_rows,
)
from flyweight.compressor.report.tradeoff import draw_tradeoff


def render_report(document: Mapping[str, Any], path: Path) -> None:
    """Write the report of a compression as one HTML file, which loads nothing from anywhere.

    The same document gives the same bytes.

    Args:
        document: what `flyweight compress --json` prints; a "serving" part adds what traffic saw.
        path: the file to write; its folder is made.

    Raises:
        ReportError: the document is not one of a compression, or the file cannot be written.
    """
    text = page_of(read_document(document))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written ({error.strerror or error}); name a file that you may write."
        ) from error


def page_of(document: Document) -> str:
    """Return the page's HTML."""
    environment = Environment(
        loader=PackageLoader("flyweight.compressor.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.loader.get_source(environment, "style.css")[0] if environment.loader else ""
    return environment.get_template("report.html").render(
        document=document,
        content=_content(document),
        served_columns=SERVED_COLUMNS,
        variant_columns=variant_columns(document),
        # Our own style sheet, not a user's text.
        style=Markup(style),  # noqa: S704
        light=palette.declarations("light"),
        dark=palette.declarations("dark"),
    )


@dataclass(frozen=True, slots=True)
class Content:
    """What the template shows beside the document itself."""

    recommendation: str
    tiles: tuple[Tile, ...]
    measured: tuple[Picture, ...]
    served: tuple[Picture, ...]
    rows: tuple[Row, ...]
    served_rows: tuple[Row, ...]
    closer: tuple[Closer, ...]
    searched: Table | None
    conditions: tuple[tuple[str, str], ...]


def _content(document: Document) -> Content:
    looks = palette.looks([variant.name for variant in document.variants], document.baseline)
    measured = (
        draw_tradeoff(document, looks),
        draw_latency(document, looks),
        draw_footprint(document, looks),
    )
    serving = document.serving
    served = (draw_timeline(serving, looks), draw_served(serving, looks)) if serving else ()
    return Content(
        recommendation=wording.recommendation(document),
        tiles=tiles(document),
        measured=tuple(picture for picture in measured if picture),
        served=tuple(picture for picture in served if picture),
        rows=variant_rows(document, looks),
        served_rows=served_rows(document, looks),
        closer=closer_looks(document),
        searched=searched(document),
        conditions=_conditions(document),
    )


def _conditions(document: Document) -> tuple[tuple[str, str], ...]:
    """Return how the figures were taken, term by term; what is not known is left out."""
    where, data = document.environment, document.data
    samples = next((v.quality.samples for v in document.variants if v.quality.samples), None)
    known: list[tuple[str, Any]] = [
        ("Processor", where.cpu),
        ("Instruction set", where.isa),
        ("Cores seen", where.cores),
        ("Threads per session", where.threads),
        ("Runtime", f"onnxruntime {where.onnxruntime}" if where.onnxruntime else None),
        ("flyweight", where.flyweight),
        ("Data", data.name),
        ("Quality metric", data.quality_metric),
        ("Samples for quality", f"{samples:,}; one sample is {100 / samples:.2f} pt" if samples else None),
        ("Samples given", f"{data.samples:,}" if data.samples else None),
        ("Digest of the data", data.digest),
        ("Repository", document.repository or None),
        ("Note", document.note or None),
    ]
    return tuple((term, str(value)) for term, value in known if value not in (None, ""))
