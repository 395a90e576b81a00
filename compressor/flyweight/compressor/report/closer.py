"""A closer look at one variant: what was measured beyond the table, and why it is what it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from flyweight.compressor.report import wording
from flyweight.compressor.report.document import Document, Variant
from flyweight.compressor.report.explained import Explanation, Finding, Flips, Layer
from flyweight.compressor.report.figures import PerClass, Quality, Trigger


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under headings; of the columns named in `words` the cells are text and not figures."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample with what was answered."""

    picture: str
    words: str


@dataclass(frozen=True, slots=True)
class Closer:
    """Everything said of one variant beside its line in the table; empty parts are left out of the page."""

    name: str
    facts: tuple[tuple[str, str], ...]
    audit_heading: str
    audit: tuple[tuple[str, str, str], ...]
    tables: tuple[Table, ...]
    changed: str
    samples: tuple[Shown, ...]
    notes: tuple[str, ...]


def closer_looks(document: Document) -> tuple[Closer, ...]:
    """Return one for every variant, the baseline too, of which there is more to say than its line says."""
    looks = (_closer(document, variant) for variant in document.variants)
    return tuple(look for look in looks if look.facts or look.audit or look.tables or look.samples)


def searched(document: Document) -> Table | None:
    """Return what a search tried, in order; None where nothing was searched."""
    if document.search is None:
        return None
    return Table(
        document.search.sentence,
        ("trial", "recipe", "latency", "size", "quality lost", "why not"),
        tuple(
            (
                str(trial.number),
                trial.kind,
                wording.share_text(trial.latency_share),
                wording.share_text(trial.size_share),
                wording.share_text(trial.quality_lost),
                trial.error or trial.missed or "",
            )
            for trial in document.search.trials
        ),
        frozenset({"recipe", "why not"}),
    )


def _closer(document: Document, variant: Variant) -> Closer:
    explanation = variant.explanation or Explanation()
    tables = (
        _classes(variant.quality.per_class),
        _layers(explanation.layers),
        _robustness(variant.robustness),
    )
    return Closer(
        name=variant.name,
        facts=tuple(
            (term, value) for term, value in (*_speeds(document, variant), *_facts(variant)) if value
        ),
        audit_heading=_audit_heading(document, variant),
        audit=tuple(_finding(finding) for finding in explanation.audit),
        tables=tuple(table for table in tables if table is not None),
        changed=_changed(explanation.flips),
        samples=_samples(explanation.flips),
        notes=explanation.notes,
    )


def _speeds(document: Document, variant: Variant) -> list[tuple[str, str]]:
    """Return how fast a variant is at every batch size, with the interval, and whether that says anything."""
    told = []
    for batch, timed in sorted(variant.latency.items()):
        if timed.ratio_interval is None or variant.name == document.baseline:
            continue
        interval = wording.interval_text(timed.ratio_interval)
        text = f"{wording.ratio_text(document.speedup(variant, batch))}, 95 % interval {interval}"
        text += ": no measurable difference" if document.is_as_fast(variant, batch) else ""
        told.append((f"Speed at batch {batch}", text))
    return told


def _audit_heading(document: Document, variant: Variant) -> str:
    """Return the question that the audit answers, which depends on what was measured."""
    if variant.name == document.baseline:
        return "Where does its time go?"
    speedups = [document.speedup(variant, batch) for batch in variant.latency]
    known = [speedup for speedup in speedups if speedup is not None]
    if any(document.is_as_fast(variant, batch) for batch in variant.latency) or not known:
        return "Why is it not faster?"
    if max(known) < 1:
        return "Why is it slower?"
    return "What keeps it from being faster still?" if min(known) > 1 else "Why is it not faster?"


def _facts(variant: Variant) -> list[tuple[str, str]]:
    quality, metric = variant.quality, variant.quality.metric
    saliency = variant.explanation.saliency if variant.explanation else None
    return [
        ("95 % interval", _interval(metric, quality.interval)),
        ("Difference to the baseline, 95 %", _difference(quality)),
        ("McNemar's test", _mcnemar(quality)),
        ("Calibration error", _share_against(quality.ece, quality.baseline_ece)),
        ("Answers changed", _share(quality.churn)),
        ("File after deflate", _known(variant.compressed_bytes, wording.bytes_text)),
        ("Bits a weight", f"{variant.bits_per_weight:.2f}" if variant.bits_per_weight else ""),
        ("Weights that are not zero", _known(variant.nonzero_parameters, wording.count_text)),
        ("Time to load", _known(variant.load_ms, wording.milliseconds_text)),
        ("Energy of a run (estimate)", f"{variant.energy_mj:.3g} mJ" if variant.energy_mj else ""),
        ("Looks at the same places", f"rank correlation {saliency.correlation:.2f}" if saliency else ""),
        ("Long run", _stability(variant)),
        ("Patches as triggers", _trigger(variant.trigger)),
    ]


def _known(value: float | None, text: Callable[[float | None], str]) -> str:
    return "" if value is None else text(value)


def _share(value: float | None) -> str:
    return "" if value is None else wording.share_text(value)


def _share_against(value: float | None, before: float | None) -> str:
    if value is None:
        return ""
    return wording.share_text(value) + (
        f", baseline {wording.share_text(before)}" if before is not None else ""
    )


def _interval(metric: str, interval: tuple[float, float] | None) -> str:
    if interval is None:
        return ""
    return f"{wording.quality_text(metric, interval[0])} to {wording.quality_text(metric, interval[1])}"


def _difference(quality: Quality) -> str:
    if quality.difference_interval is None:
        return ""
    low, high = quality.difference_interval
    return f"{wording.delta_text(quality.metric, low)} to {wording.delta_text(quality.metric, high)}"


def _mcnemar(quality: Quality) -> str:
    found = quality.mcnemar
    if found is None or found.p_value is None:
        return ""
    return f"{found.worse} worse, {found.better} better, p = {found.p_value:.2g}"


def _stability(variant: Variant) -> str:
    found = variant.stability
    if found is None or not found.runs:
        return ""
    same = "equal answers" if found.equal_answers else "answers differ"
    drift = f", pace at the end {found.drift:.2f} of the start's" if found.drift is not None else ""
    return f"{found.runs:,} runs, {same}{drift}"


def _trigger(found: Trigger | None) -> str:
    if found is None:
        return ""
    if not found.patches:
        return found.note
    verdict = "none switches an answer on" if found.passed else "one switches an answer on"
    return f"{found.patches} patches on {found.samples} samples: {verdict}"


def _finding(finding: Finding) -> tuple[str, str, str]:
    share = wording.share_text(finding.share) if finding.share is not None else ""
    nodes = ", ".join(wording.shortened(node, 40) for node in finding.nodes)
    return share, f"{finding.finding} {f'({nodes})' if nodes else ''}".strip(), finding.remedy


def _classes(classes: tuple[PerClass, ...]) -> Table | None:
    if not classes:
        return None
    return Table(
        "Every class: recall against the baseline's",
        ("class", "samples", "recall", "difference", "precision", "F1"),
        tuple(
            (
                str(one.label),
                wording.count_text(one.support),
                wording.share_text(one.recall),
                wording.delta_text(
                    "recall",
                    None
                    if one.recall is None or one.baseline_recall is None
                    else one.recall - one.baseline_recall,
                ),
                wording.share_text(one.precision),
                wording.share_text(one.f1),
            )
            for one in classes
        ),
    )


def _layers(layers: tuple[Layer, ...]) -> Table | None:
    if not layers:
        return None
    return Table(
        "Every layer: what is stored, and its output's signal-to-noise ratio against the baseline's",
        ("layer", "operator", "weights", "were", "bits", "zeros", "output"),
        tuple(
            (
                wording.shortened(layer.name, 40),
                layer.operator,
                wording.count_text(layer.parameters),
                wording.count_text(layer.baseline_parameters),
                str(layer.bits),
                wording.share_text(layer.zeros),
                _decibels(layer.snr_db),
            )
            for layer in layers
        ),
        frozenset({"operator"}),
    )


def _decibels(value: float | None) -> str:
    if value is None:
        return wording.MISSING
    return "equal" if value >= 200 else f"{value:.0f} dB".replace("-", "\N{MINUS SIGN}")


def _robustness(kept: Mapping[str, Mapping[str, float | None]]) -> Table | None:
    if not kept:
        return None
    severities = sorted({severity for by_severity in kept.values() for severity in by_severity})
    return Table(
        "Disturbed inputs: quality kept relative to the baseline under the same disturbance",
        ("disturbance", *(f"severity {severity}" for severity in severities)),
        tuple(
            (name, *(wording.share_text(by_severity.get(severity)) for severity in severities))
            for name, by_severity in kept.items()
        ),
    )


def _changed(flips: Flips | None) -> str:
    if flips is None:
        return ""
    if not flips.count:
        return "No answer changed."
    what = f"{flips.count:,} answers changed"
    if flips.harmed is not None:
        what += f": {flips.harmed:,} that were right, {flips.mended or 0:,} that are right now"
    moves = ", ".join(f"{before} to {after} ({count})" for before, after, count in flips.moves[:5])
    return f"{what}. Most often: {moves}."


def _samples(flips: Flips | None) -> tuple[Shown, ...]:
    if flips is None:
        return ()
    return tuple(
        Shown(
            flip.picture,
            f"sample {flip.sample}: {flip.baseline} became {flip.variant}"
            + (f", is {flip.label}" if flip.label is not None else ""),
        )
        for flip in flips.samples
    )
