"""The table of one network, as text and as JSON."""

import statistics
from typing import Any, Final

from benchmarks.serving.contenders import BARE, RAW
from benchmarks.serving.measuring import Result, Series

_COLUMNS: Final = (
    f"{'':30}{'requests/s':>11}{'to raw':>8}{'to bare':>8}{'p50 ms':>9}{'p99 ms':>9}"
    f"{'CPU us':>9}{'RSS MB':>8}{'PSS MB':>8}{'errors':>7}{'load CPU':>9}"
)


def show(result: Result) -> None:
    """Print a network's table."""
    print(f"\n{result.network.title}, batch 1")
    for callers, by_title in result.series.items():
        print(f"{callers} concurrent\n{_COLUMNS}")
        for title, series in by_title.items():
            print(_line(result, callers, title, series))
    for title, reason in result.missing.items():
        print(f"{title:30} {reason}")


def document(result: Result) -> dict[str, Any]:
    """Return a network's figures as JSON has them."""
    return {
        "missing": result.missing,
        "memory": {
            title: {"rss_megabytes": memory.rss_megabytes, "pss_megabytes": memory.pss_megabytes}
            for title, memory in result.memory.items()
        },
        "callers": {
            str(callers): {title: _figures(by_title, series) for title, series in by_title.items()}
            for callers, by_title in result.series.items()
        },
    }


def _figures(by_title: dict[str, Series], series: Series) -> dict[str, Any]:
    return {
        "requests_per_second": statistics.median(series.rates),
        "rate_to_raw": series.ratio_to(by_title[RAW]),
        "rate_to_bare_grpcio": series.ratio_to(by_title[BARE]) if BARE in by_title else None,
        "p50_us": statistics.median(series.p50_us),
        "p99_us": statistics.median(series.p99_us),
        "cpu_us_per_request": statistics.median(series.cpu_us),
        "errors": series.errors,
        "load_cpu_share": statistics.median(series.load_cpu),
        "rounds": series.rates,
    }


def _line(result: Result, callers: int, title: str, series: Series) -> str:
    figures = _figures(result.series[callers], series)
    memory = result.memory.get(title)
    to_bare = figures["rate_to_bare_grpcio"]
    return (
        f"{title:30}{figures['requests_per_second']:11,.0f}{figures['rate_to_raw']:8.3f}"
        f"{'' if to_bare is None else format(to_bare, '.2f'):>8}"
        f"{figures['p50_us'] / 1e3:9.2f}{figures['p99_us'] / 1e3:9.2f}{figures['cpu_us_per_request']:9,.0f}"
        f"{'' if memory is None else format(memory.rss_megabytes, '.0f'):>8}"
        f"{'' if memory is None else format(memory.pss_megabytes, '.0f'):>8}{figures['errors']:7}"
        f"{'' if title == RAW else format(figures['load_cpu_share'], '.0%'):>9}"
    )
