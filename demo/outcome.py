"""How the demo ends: a table on the terminal, the report, the summary, and how to look at them."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from demo.settings import DemoSettings
from flyweight.compressor.report import render_report
from flyweight.compressor.report import wording as words


def write_outcome(document: Mapping[str, Any], settings: DemoSettings) -> None:
    """Write summary.json and report.html.

    Raises:
        ReportError: they cannot be written.
    """
    settings.summary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    render_report(document, settings.report)


def measured_table(document: Mapping[str, Any]) -> Table:
    """Return the table of all variants as measured, the recommended one marked; it fits 80 columns."""
    columns = (
        "top-1\n%",
        "change\npt",
        "batch 1\np50 ms",
        "\nspeed-up",
        "batch 8\np50 ms",
        "file\nMB",
        "memory\nMB",
        "\nkept",
    )
    table = _table("Measured alone, in onnxruntime", columns)
    for variant in document["variants"]:
        style = "bold green" if variant["name"] == document["recommended"] else ""
        table.add_row(*_measured_row(variant), style=style)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.show_edge, table.padding = False, (0, 1, 0, 0)
    table.add_column("\nvariant", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _measured_row(variant: Mapping[str, Any]) -> list[str]:
    quality, one, eight = variant.get("quality") or {}, _latency(variant, 1), _latency(variant, 8)
    return [
        variant["name"],
        _number(quality.get("value"), 100),
        _number(quality.get("delta"), 100, "+"),
        _number(one.get("p50_ms"), 1, digits=3),
        _number(one.get("ratio"), 1),
        _number(eight.get("p50_ms"), 1, digits=3),
        _number(variant.get("bytes"), 1e-6, digits=3),
        _number((variant.get("memory") or {}).get("pss_bytes"), 1e-6),
        "yes" if variant["published"] else "no",
    ]


def _number(value: float | None, scale: float, sign: str = "", digits: int = 2) -> str:
    return words.MISSING if value is None else f"{value * scale:{sign}.{digits}f}"


def _latency(variant: Mapping[str, Any], batch: int) -> Mapping[str, Any]:
    found: Mapping[str, Any] = (variant.get("latency") or {}).get(str(batch)) or {}
    return found


def refusals(document: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each variant that was not published."""
    return [f"{v['name']}: {v['reason']}" for v in document["variants"] if not v["published"]]


def served_table(serving: Mapping[str, Any]) -> Table:
    """Return the table of what live traffic saw; it fits 80 columns."""
    columns = (
        "asked\n%",
        "answered\n%",
        "\nrequests",
        "\nfailed",
        "top-1\n%",
        "p50\nms",
        "p99\nms",
        "run\nms",
    )
    table = _table("As served, under live gRPC traffic", columns)
    for name, seen in serving["variants"].items():
        table.add_row(
            name,
            _number(seen["asked"], 100, digits=1),
            _number(seen["share"], 100, digits=1),
            f"{seen['requests']:,}",
            f"{seen['failed']:,}",
            _number(seen["accuracy"], 100),
            _number(seen["p50_ms"], 1),
            _number(seen["p99_ms"], 1),
            _number(seen["stages"].get("run", {}).get("mean_ms"), 1, digits=3),
        )
    return table


def tell(document: Mapping[str, Any], settings: DemoSettings, console: Console) -> None:
    """Print both tables, what was refused and why, and where to look."""
    serving = document["serving"]
    console.print()
    console.print(measured_table(document))
    for refusal in refusals(document):
        console.print(f"  not published: {refusal}", highlight=False, style="yellow")
    console.print()
    console.print(served_table(serving))
    load = serving["hot_load"]
    console.print(
        f"  {serving['requests']:,} requests, {serving['failed']} failed. {load['variant']} was published "
        f"while traffic ran and was ready {words.seconds_text(load['seconds_to_ready'])} later; "
        f"{load['requests_during']:,} requests were answered meanwhile. Until then the split was "
        f"{_split_text(serving['opening_split'])}.",
        highlight=False,
    )
    console.print(f"\n[bold]Recommended: {document['recommended']}[/bold]", highlight=False)
    for line in _where_to_look(settings):
        console.print(line, highlight=False, soft_wrap=True)


def _split_text(split: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in split.items())


def _where_to_look(settings: DemoSettings) -> list[str]:
    command = os.path.relpath(Path(sys.executable).with_name("flyweight"))
    return [
        f"\nThe report:  open {settings.report} in a browser   ({settings.report.resolve().as_uri()})",
        f"The table:   {settings.summary}",
        f"The models:  serve them with `{command} serve {settings.repository}`,",
        f"             and ask from another terminal: `{command} models`",
    ]
