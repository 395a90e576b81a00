"""What `flyweight predict` prints: for people, or as one JSON document."""

import math
from collections.abc import Mapping

import numpy as np

from flyweight.client.cli.answers import Result, Summary, classes, judge, summarize, variant_of_row
from flyweight.client.cli.table import table
from flyweight.client.results import Array

_NUMBERS = frozenset(
    {"rows", "requests", "p50 ms", "p99 ms", "accuracy", "mean abs. error", "row", "class", "score"}
)


def document(result: Result) -> dict[str, object]:
    """Return the answers as what `--json` prints.

    {"model", "url", "rows", "requests", "seconds", "quality": {"metric", "value"} | null,
     "variants": [{"variant", "role", "rows", "requests", "latency_ms": {"p50", "p99"}, "quality"}],
     "outputs": {name: {"dtype", "shape"}}, "predictions": [{"variant", "class", "score"}]}
    with `class` and `score` only where an output looks like class scores.
    """
    *variants, everything = summarize(result)
    judged = judge(result.outputs, result.labels)
    return {
        "model": result.model,
        "url": result.url,
        "rows": everything.rows,
        "requests": everything.requests,
        "seconds": round(result.seconds, 6),
        "quality": None if judged is None else {"metric": judged[0], "value": _number(everything.quality)},
        "variants": [_line(summary) for summary in variants],
        "outputs": {
            name: {"dtype": str(array.dtype), "shape": list(array.shape)}
            for name, array in result.outputs.items()
        },
        "predictions": _predictions(result),
    }


def _line(summary: Summary) -> dict[str, object]:
    return {
        "variant": summary.variant,
        "role": summary.role,
        "rows": summary.rows,
        "requests": summary.requests,
        "latency_ms": {"p50": round(summary.p50_ms, 4), "p99": round(summary.p99_ms, 4)},
        "quality": _number(summary.quality),
    }


def _number(value: float | None) -> float | None:
    """Return a number as JSON can hold it, which has neither infinity nor not-a-number."""
    return value if value is not None and math.isfinite(value) else None


def _predictions(result: Result) -> list[dict[str, object]]:
    variants = variant_of_row(result.answers).tolist()
    found = _classes(result)
    if found is None:
        return [{"variant": variant} for variant in variants]
    best, score = found
    return [
        {"variant": variant, "class": int(c), "score": _number(float(s))}
        for variant, c, s in zip(variants, best, score, strict=True)
    ]


def text(result: Result, show: int) -> str:
    """Return the answers for people: who answered how many rows, how fast, how well; then the first rows."""
    summaries = summarize(result)
    everything = summaries[-1]
    lines = summaries if len(summaries) > 2 else summaries[:1]
    judged = judge(result.outputs, result.labels)
    header = ["variant", "role", "rows", "requests", "p50 ms", "p99 ms"]
    cells = [_cells(summary) for summary in lines]
    if judged is not None:
        header.append("accuracy" if judged[0] == "accuracy" else "mean abs. error")
        for row, summary in zip(cells, lines, strict=True):
            row.append(_quality(judged[0], summary.quality))
    sent = f"{everything.rows} rows in {everything.requests} requests, {result.seconds:.1f} s"
    parts = [f"{result.model} at {result.url}: {sent}", table(header, cells, _NUMBERS)]
    if show:
        parts.append(_first_rows(result, show))
    return "\n\n".join(parts)


def _cells(summary: Summary) -> list[str]:
    return [
        summary.variant,
        summary.role or "-",
        str(summary.rows),
        str(summary.requests),
        f"{summary.p50_ms:.2f}",
        f"{summary.p99_ms:.2f}",
    ]


def _quality(metric: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2%}" if metric == "accuracy" else f"{value:.4g}"


def _first_rows(result: Result, show: int) -> str:
    variants = variant_of_row(result.answers)
    found = _classes(result)
    count = min(show, len(variants))
    if found is None:
        header = ["row", "variant", *result.outputs]
        cells = [[str(row), str(variants[row]), *_values(result.outputs, row)] for row in range(count)]
    else:
        header = ["row", "variant", "class", "score"]
        best, score = found
        cells = [[str(row), str(variants[row]), str(best[row]), f"{score[row]:.4g}"] for row in range(count)]
    if result.labels is not None:
        header.append("label")
        for row, line in enumerate(cells):
            line.append(_short(result.labels[row]))
    rest = len(variants) - count
    note = f"\n{rest} more rows: --show N prints more, --out FILE keeps all." if rest else ""
    return table(header, cells, _NUMBERS) + note


def _classes(result: Result) -> tuple[Array, Array] | None:
    """Return classes and scores, unless the labels say that this is a regression."""
    regression = result.labels is not None and result.labels.dtype.kind == "f"
    return None if regression else classes(result.outputs)


def _values(outputs: Mapping[str, Array], row: int) -> list[str]:
    return [_short(array[row]) for array in outputs.values()]


def _short(values: Array) -> str:
    told = np.array2string(np.asarray(values), precision=4, threshold=6, edgeitems=2, separator=" ")
    return " ".join(told.split())
