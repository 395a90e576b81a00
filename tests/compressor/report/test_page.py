import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from flyweight.compressor.report import ReportError, render_report
from flyweight.compressor.report.document import read_document
from flyweight.compressor.report.page import page_of

_VOID = {"meta", "link", "br", "img", "input", "hr"}


class Checker(HTMLParser):
    """Collects what the page refers to and the ids it defines, and checks that tags nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.references: list[str] = []
        self.headers = 0
        self.unlabelled = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, dict(attrs))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._attributes(tag, dict(attrs))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def _attributes(self, tag: str, found: dict[str, str | None]) -> None:
        self.ids += [found["id"] or ""] if "id" in found else []
        self.references += [found[key] or "" for key in ("src", "href", "xlink:href") if key in found]
        self.headers += tag == "th" and "scope" in found
        self.unlabelled += tag == "svg" and not found.get("aria-label")


@pytest.fixture
def checked(report_page: str) -> Checker:
    checker = Checker()
    checker.feed(report_page)
    checker.close()
    return checker


def test_page_is_well_nested(checked: Checker) -> None:
    assert checked.open == []


def test_page_loads_nothing(report_page: str, checked: Checker) -> None:
    assert all(reference.startswith("#") for reference in checked.references)
    assert "<script" not in report_page
    assert "@import" not in report_page
    assert not re.search(r"url\((?!#)", report_page)


def test_no_id_is_given_twice(checked: Checker) -> None:
    assert len(checked.ids) == len(set(checked.ids))


def test_every_reference_inside_the_page_exists(report_page: str, checked: Checker) -> None:
    wanted = set(re.findall(r"url\(#([^)]+)\)", report_page)) | {
        r.removeprefix("#") for r in checked.references
    }
    assert wanted <= set(checked.ids)


def test_pictures_are_told_in_words_and_tables_have_headers(checked: Checker) -> None:
    assert checked.unlabelled == 0
    assert checked.headers > 20


def test_same_document_gives_same_bytes(report_page: str, report_document: dict[str, Any]) -> None:
    assert page_of(read_document(report_document)) == report_page


def test_stand_in_colours_do_not_reach_the_page(report_page: str) -> None:
    assert not re.search(r"#0[1-7]0[0-7]0[1-7]", report_page)
    assert "var(--series-1)" in report_page


def test_says_who_is_recommended_and_what_it_costs(report_page: str) -> None:
    assert "Recommended: int8" in report_page
    assert "It answers 2.50\N{MULTIPLICATION SIGN} as fast as the baseline" in report_page
    assert "gives up 1.00 points of accuracy on 540 samples" in report_page


def test_shows_refused_variant_with_its_reason(report_page: str) -> None:
    assert "not published" in report_page
    assert "It is 4 times slower than the baseline." in report_page


def test_tells_the_hot_load(report_page: str) -> None:
    assert "12 requests were answered while it loaded" in report_page


def test_names_are_escaped(report_document: dict[str, Any]) -> None:
    report_document["model"] = "<script>alert(1)</script>"
    report_document["variants"][1]["reason"] = "<b>bold</b> & $x^2$"
    text = page_of(read_document(report_document))
    assert "<script" not in text
    assert "&lt;b&gt;bold&lt;/b&gt; &amp; $x^2$" in text


def test_document_without_traffic_has_no_such_part(report_document: dict[str, Any]) -> None:
    del report_document["serving"]
    assert "As served" not in page_of(read_document(report_document))


def test_variant_without_figures_is_listed(report_document: dict[str, Any]) -> None:
    report_document["variants"].append(
        {"name": "broken", "published": False, "reason": "It could not be built.", "quality": None}
    )
    text = page_of(read_document(report_document))
    assert "It could not be built." in text


def test_names_alone_are_enough() -> None:
    text = page_of(read_document({"model": "m", "variants": [{"name": "baseline"}]}))
    assert "No variant is recommended" in text


def test_forty_variants_with_long_names_are_drawn(report_document: dict[str, Any]) -> None:
    template = report_document["variants"][1]
    report_document["variants"] += [template | {"name": f"{'v' * 100}-{number}"} for number in range(40)]
    assert page_of(read_document(report_document)).count("<tbody>") == 45


def test_regression_quality_is_not_shown_in_percent(report_document: dict[str, Any]) -> None:
    report_document["data"]["quality_metric"] = "r2"
    for variant in report_document["variants"]:
        variant["quality"]["metric"] = "r2"
    text = page_of(read_document(report_document))
    assert "98.00 %" not in re.sub(r"(?s)<h2 id=\"served\">.*?</section>", "", text)


def test_writes_the_file_in_a_new_folder(tmp_path: Path, report_document: dict[str, Any]) -> None:
    render_report(report_document, tmp_path / "new" / "report.html")
    assert (tmp_path / "new" / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("document", "named"),
    [({}, "model"), ({"model": "m"}, "variants"), ({"model": "m", "variants": []}, "variants")],
)
def test_refuses_what_is_not_a_document_naming_the_field(document: dict[str, Any], named: str) -> None:
    with pytest.raises(ReportError, match=named):
        render_report(document, Path("never-written.html"))


def test_place_that_cannot_be_written_is_named(tmp_path: Path, report_document: dict[str, Any]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ReportError, match="cannot be written"):
        render_report(report_document, tmp_path / "file" / "report.html")


def test_a_speed_that_cannot_be_told_from_the_baselines_is_called_so(report_document: dict[str, Any]) -> None:
    for batch in ("1", "8"):
        report_document["variants"][1]["latency"][batch] |= {"ratio": 1.01, "ratio_interval": [0.97, 1.04]}
    text = page_of(read_document(report_document))
    assert "1.01\N{MULTIPLICATION SIGN} (0.97 to 1.04)\nno measurable\ndifference" in text
    assert "It is as fast as the baseline at batch 1, no difference was measurable" in text
    report_document["variants"][1]["latency"]["1"] |= {"ratio": 1.03, "ratio_interval": [1.01, 1.04]}
    assert "It answers 1.03\N{MULTIPLICATION SIGN} as fast" in page_of(read_document(report_document))


def test_the_reason_of_the_recommendation_is_told(report_document: dict[str, Any]) -> None:
    report_document["recommended_reason"] = "25% of the file at the same speed."
    assert "Why: 25% of the file at the same speed." in page_of(read_document(report_document))


def test_a_recommended_variant_that_needs_more_memory_says_so(report_document: dict[str, Any]) -> None:
    report_document["variants"][1]["memory"]["pss_bytes"] = 9_000_000
    assert "but needs 150.0 % of its memory (9.00 MB)" in page_of(read_document(report_document))


def test_a_variant_of_an_earlier_run_is_marked(report_document: dict[str, Any]) -> None:
    report_document["variants"].append(report_document["variants"][1] | {"name": "old", "earlier": True})
    assert '<span class="badge earlier-run">earlier run</span>' in page_of(read_document(report_document))


def test_a_model_of_one_batch_size_has_its_columns(report_document: dict[str, Any]) -> None:
    for variant in report_document["variants"]:
        variant["latency"] = {"4": variant["latency"]["1"]}
    text = page_of(read_document(report_document))
    assert "batch 4: p50 / p99" in text
    assert "as fast as the baseline at batch 4" in text


def test_text_columns_are_told_from_figures(report_document: dict[str, Any]) -> None:
    trial = {"number": 0, "kind": "coded", "size_share": 0.8, "missed": "size is 80% where 60% is asked"}
    report_document["search"] = {"budget": "size<=60%", "sentence": "None.", "trials": [trial]}
    text = page_of(read_document(report_document))
    assert '<td class="words">coded</td>' in text
    assert "<td>80.0 %</td>" in text
    assert '<th scope="col" class="words">why not</th>' in text
