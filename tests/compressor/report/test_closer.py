"""The closer look at a variant: what the document says of it is on the page, and nothing else is."""

from typing import Any

import pytest

from flyweight.compressor.report import wording
from flyweight.compressor.report.closer import closer_looks
from flyweight.compressor.report.document import ReportError, read_document
from flyweight.compressor.report.page import page_of

EXPLANATION: dict[str, Any] = {
    "layers": [
        {"name": "conv1", "operator": "Conv", "parameters": 864, "baseline_parameters": 1728, "bits": 8,
         "zeros": 0.25, "snr_db": 31.6},
        {"name": "head", "operator": "Gemm", "parameters": 1280, "bits": 32, "zeros": 0.0, "snr_db": 200.0},
    ],
    "flips": {
        "count": 3, "harmed": 2, "mended": 1, "moves": [[6, 0, 2], [4, 2, 1]],
        "samples": [{"sample": 17, "label": 6, "baseline": 6, "variant": 0,
                     "picture": "data:image/png;base64,iVBORw0KGgo="}],
    },
    "saliency": {"correlation": 0.93, "lowest": 0.8, "samples": 8},
    "audit": [{"finding": "2 layers compute in fp32.",
               "nodes": ["conv9"], "share": 0.31, "remedy": "Calibrate."}],
    "notes": [],
}  # fmt: skip


def with_details(document: dict[str, Any]) -> dict[str, Any]:
    variant = document["variants"][1]
    variant["explanation"] = EXPLANATION
    variant["quality"] |= {
        "interval": [0.97, 0.99],
        "mcnemar": {"p_value": 0.5, "worse": 2, "better": 1},
        "per_class": [{"class": 6, "recall": 0.9, "baseline_recall": 0.92, "precision": 0.88, "support": 50}],
    }
    variant["robustness"] = {"noise": {"1": 0.99, "2": 0.95, "3": None}}
    variant["trigger"] = {"passed": True, "patches": 24, "samples": 64}
    return document


def test_the_page_tells_what_the_document_holds(report_document) -> None:
    page = page_of(read_document(with_details(report_document)))
    for words in (
        "A closer look",
        "What keeps it from being faster still?",
        "<b>31.0 %</b> 2 layers compute in fp32. (conv9)",
        "Calibrate.",
        "3 answers changed: 2 that were right, 1 that are right now. Most often: 6 to 0 (2), 4 to 2 (1).",
        "sample 17: 6 became 0, is 6",
        "data:image/png;base64,iVBORw0KGgo=",
        "32 dB",
        "2 worse, 1 better, p = 0.5",
        "rank correlation 0.93",
        "24 patches on 64 samples: none switches an answer on",
    ):
        assert words in page, words


def test_what_was_not_taken_is_left_out(report_document) -> None:
    assert closer_looks(read_document(report_document)) == ()
    assert "A closer look" not in page_of(read_document(report_document))


def test_one_class_lost_two_points(report_document) -> None:
    [look] = closer_looks(read_document(with_details(report_document)))
    classes = look.tables[0]
    assert classes.rows == (("6", "50", "90.0 %", "\N{MINUS SIGN}2.00 pt", "88.0 %", wording.MISSING),)


@pytest.mark.parametrize(
    "picture", ["javascript:alert(1)", 'data:image/png;base64,"><script>', "http://x/y.png"]
)
def test_a_picture_that_is_none_is_refused(picture: str, report_document) -> None:
    document = with_details(report_document)
    sample = {**EXPLANATION["flips"]["samples"][0], "picture": picture}
    flips = {**EXPLANATION["flips"], "samples": [sample]}
    document["variants"][1]["explanation"] = {**EXPLANATION, "flips": flips}
    with pytest.raises(ReportError, match="picture"):
        read_document(document)


def test_what_a_search_tried_is_told_with_why_it_was_not_taken(report_document) -> None:
    report_document["search"] = {
        "budget": "size<=25%",
        "sentence": "1 of 2 recipes meet the budget.",
        "trials": [
            {"number": 0, "kind": "static int8", "latency_share": 0.4, "size_share": 0.3,
             "quality_lost": 0.01, "missed": "size is 30.0% of the baseline's where 25.0% is asked"},
            {"number": 1, "kind": "pruned", "error": "The module cannot be cut."},
        ],
    }  # fmt: skip
    page = page_of(read_document(report_document))
    for words in (
        "What the search tried for size&lt;=25%",
        "40.0 %",
        "where 25.0% is asked",
        "cannot be cut",
    ):
        assert words in page, words


@pytest.mark.parametrize(
    ("ratios", "interval", "heading"),
    [
        ((2.5, 2.4), None, "What keeps it from being faster still?"),
        ((0.5, 0.6), None, "Why is it slower?"),
        ((2.5, 0.9), None, "Why is it not faster?"),
        ((1.01, 1.01), [0.98, 1.03], "Why is it not faster?"),
    ],
)
def test_the_question_of_the_audit_depends_on_what_was_measured(
    ratios: tuple[float, float], interval: list[float] | None, heading: str, report_document
) -> None:
    document = with_details(report_document)
    for batch, ratio in zip(("1", "8"), ratios, strict=True):
        document["variants"][1]["latency"][batch] |= {"ratio": ratio, "ratio_interval": interval}
    (look,) = closer_looks(read_document(document))
    assert look.audit_heading == heading


def test_the_interval_of_a_speed_is_told(report_document) -> None:
    document = with_details(report_document)
    document["variants"][1]["latency"]["1"] |= {"ratio": 1.01, "ratio_interval": [0.98, 1.03]}
    (look,) = closer_looks(read_document(document))
    facts = dict(look.facts)
    assert facts["Speed at batch 1"] == (
        "1.01\N{MULTIPLICATION SIGN}, 95 % interval 0.98 to 1.03: no measurable difference"
    )
    assert "Speed at batch 8" not in facts
