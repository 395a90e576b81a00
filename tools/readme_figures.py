"""Write the figures of the last `make demo` into README.md, so that none is typed by hand.

Run `make demo && make figures`; it also takes the report's picture when a Chromium is installed.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from demo.errors import DemoError
from demo.picture import photograph

README = Path("README.md")
SUMMARY, REPORT = Path("build/demo/summary.json"), Path("build/demo/report.html")
PICTURE = Path("docs/images/report.png")
BEGIN, END = "<!-- figures: begin, written by `make figures` -->", "<!-- figures: end -->"


def main() -> int:
    """Replace what stands between the marks in README.md; return the exit code."""
    if not SUMMARY.is_file():
        print(f"{SUMMARY} is not there; run `make demo` first.", file=sys.stderr)
        return 2
    head, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, mark, tail = rest.partition(END)
    if not mark:
        print(f"{README} has no line {BEGIN!r} followed by {END!r}.", file=sys.stderr)
        return 2
    document = json.loads(SUMMARY.read_text(encoding="utf-8"))
    lines = [BEGIN, *measured(document), "", *served(document["serving"]), END]
    README.write_text(head + "\n".join(lines) + tail, encoding="utf-8")
    try:
        photograph(REPORT, PICTURE)
    except DemoError as error:
        print(f"No new picture: {error}", file=sys.stderr)
    return 0


def measured(document: Mapping[str, Any]) -> list[str]:
    """Return the table of variants as measured alone, and where."""
    machine = document["environment"]
    rows = [
        "| variant | accuracy | p50, batch 1 | speed-up | p50, batch 8 | speed-up | file | memory | MACs |",
        "|---|---|---|---|---|---|---|---|---|",
        *(variant_row(variant, document["recommended"]) for variant in document["variants"]),
    ]
    data = document["data"]
    told = (
        f"Data: {data['name']}; accuracy on {data['samples']:,} samples that no pass saw. "
        f"One thread of {machine['cpu']} ({machine['isa']}), onnxruntime {machine['onnxruntime']}."
    )
    return [*rows, "", told]


def variant_row(variant: Mapping[str, Any], recommended: str) -> str:
    """Return one variant's row, the recommended one in bold."""
    one, eight = variant["latency"]["1"], variant["latency"]["8"]
    name = f"**{variant['name']}**" if variant["name"] == recommended else variant["name"]
    cells = [
        name if variant["published"] else f"{name} (refused)",
        f"{variant['quality']['value']:.2%}",
        f"{one['p50_ms']:.3f} ms",
        f"{one['ratio']:.2f}x",
        f"{eight['p50_ms']:.3f} ms",
        f"{eight['ratio']:.2f}x",
        f"{variant['bytes'] / 1e6:.2f} MB",
        f"{variant['memory']['pss_bytes'] / 1e6:.1f} MB",
        "" if variant["macs"] is None else f"{variant['macs'] / 1e6:.1f} M",
    ]
    return "| " + " | ".join(cells) + " |"


def served(serving: Mapping[str, Any]) -> list[str]:
    """Return the sentence about live traffic."""
    load = serving["hot_load"]
    requests, failed, seconds = serving["requests"], serving["failed"], serving["seconds"]
    name, ready_seconds = load["variant"], load["seconds_to_ready"]
    return [
        f"Served: {requests:,} requests in {seconds:.0f} s, {failed} failed;",
        f"`{name}` was published while they ran, and ready {ready_seconds:.2f} s later.",
    ]


if __name__ == "__main__":
    sys.exit(main())
