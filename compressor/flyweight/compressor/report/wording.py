"""Numbers and sentences as people read them; a figure that was not taken is an en dash."""

from typing import Final

from flyweight.compressor.report.document import Document, Variant

MISSING: Final = "\N{EN DASH}"
TIMES: Final = "\N{MULTIPLICATION SIGN}"
_MINUS: Final = "\N{MINUS SIGN}"

# As in the gate's sentences: under both, two readings of one model's memory differ by as much.
_MORE_MEMORY: Final = 1.05
_MORE_MEMORY_BYTES: Final = 100_000
# Metrics that are shares of samples: shown in percent, their differences in percentage points.
_SHARES = frozenset({"accuracy", "agreement", "precision", "recall", "f1"})


def bytes_text(value: float | None) -> str:
    """Return bytes in the decimal unit that keeps three digits, as file managers and vendors count."""
    if value is None:
        return MISSING
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f} B"


def milliseconds_text(value: float | None) -> str:
    """Return milliseconds with three digits."""
    return MISSING if value is None else f"{_three_digits(value)} ms"


def count_text(value: float | None) -> str:
    """Return a count with three digits: 1.35 M, 340 k."""
    if value is None:
        return MISSING
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{_three_digits(value / size)} {unit}"
    return f"{value:.0f}"


def ratio_text(value: float | None) -> str:
    """Return a factor with three digits and a multiplication sign."""
    return MISSING if value is None else f"{_three_digits(value)}{TIMES}"


def share_text(value: float | None) -> str:
    """Return a share of 1 in percent with one decimal."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def is_share(metric: str) -> bool:
    """Tell whether a quality metric is a share of samples."""
    return metric.lower() in _SHARES


def quality_text(metric: str, value: float | None) -> str:
    """Return a quality: shares in percent, anything else with four digits."""
    if value is None:
        return MISSING
    return f"{100 * value:.2f} %" if is_share(metric) else f"{value:.4g}"


def delta_text(metric: str, value: float | None) -> str:
    """Return a difference of quality with its sign: shares in percentage points."""
    if value is None:
        return MISSING
    if not is_share(metric):
        return f"{value:+.3g}".replace("-", _MINUS)
    points = round(100 * value, 2) + 0.0  # the sum turns a negative zero into a plain one
    return f"{points:+.2f} pt".replace("-", _MINUS) if points else "±0 pt"


def interval_text(interval: tuple[float, float]) -> str:
    """Return the ends of an interval of a factor."""
    low, high = (_three_digits(end) for end in interval)
    return f"{low} to {high}"


def seconds_text(value: float | None) -> str:
    """Return seconds, fine where they are few."""
    return MISSING if value is None else f"{_three_digits(value)} s"


def shortened(name: str, longest: int = 24) -> str:
    """Return a name that fits a picture, cut in its middle where its ends still tell it apart."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"


def recommendation(document: Document) -> str:
    """Return one sentence on the recommended variant: what it wins and what it costs."""
    chosen = document.variant(document.recommended)
    if chosen is None:
        return (
            "No variant is recommended: none was better than the baseline on a stated axis and good enough."
        )
    if chosen.name == document.baseline:
        return (
            "Keep the baseline: no variant was better on a stated axis without costing more than was allowed."
        )
    gains = _gains(document, chosen)
    won = f"It {_joined(gains)}" if gains else "It was measured to be no worse than the baseline"
    return f"{won}{_cost(chosen)}{_more_memory(document, chosen)}."


def _gains(document: Document, chosen: Variant) -> list[str]:
    gains = []
    batch = document.batches[0]
    speedup, share = document.speedup(chosen, batch), document.size_share(chosen)
    median = f"{milliseconds_text(chosen.p50_ms(batch))} at the median"
    if document.is_as_fast(chosen, batch):
        gains.append(f"is as fast as the baseline at batch {batch}, no difference was measurable ({median})")
    elif speedup:
        pace = f"{ratio_text(speedup)} as fast as the baseline at batch {batch}"
        gains.append(f"answers {pace} ({median})")
    if share:
        gains.append(f"takes {share_text(share)} of its bytes ({bytes_text(chosen.bytes)})")
    return gains


def _cost(chosen: Variant) -> str:
    quality = chosen.quality
    if quality.delta is None:
        return ""
    samples = f" on {quality.samples:,} samples" if quality.samples else ""
    if round(quality.delta, 6) == 0:
        return f", and keeps the baseline's {quality.metric}{samples}"
    moved = "gives up" if quality.delta < 0 else "gains"
    amount = delta_text(quality.metric, abs(quality.delta)).lstrip("+").replace("pt", "points")
    return f", and {moved} {amount} of {quality.metric}{samples}"


def _more_memory(document: Document, chosen: Variant) -> str:
    """Return a remark where a variant needs more memory than the baseline, by more than readings differ."""
    before = document.variant(document.baseline)
    mine, theirs = chosen.memory.pss_bytes, before.memory.pss_bytes if before else None
    if not mine or not theirs or mine < max(_MORE_MEMORY * theirs, theirs + _MORE_MEMORY_BYTES):
        return ""
    return f", but needs {share_text(mine / theirs)} of its memory ({bytes_text(mine)})"


def _joined(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]


def _three_digits(value: float) -> str:
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    if magnitude >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if magnitude >= 0.1 or magnitude == 0 else f"{value:.3f}"
