"""The document of a run, what the terminal shows of it, and how both are read back from a repository."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flyweight.compressor.evaluate.churn import Churn
from flyweight.compressor.evaluate.energy import Energy
from flyweight.compressor.evaluate.evaluation import Evaluation
from flyweight.compressor.evaluate.latency import LatencyPoint
from flyweight.compressor.evaluate.load_time import LoadTime
from flyweight.compressor.evaluate.mcnemar import mcnemar
from flyweight.compressor.evaluate.per_class import ClassFigures
from flyweight.compressor.evaluate.quality import Quality
from flyweight.compressor.evaluate.robustness import Robustness
from flyweight.compressor.evaluate.stability import Stability
from flyweight.compressor.gate import Verdict
from flyweight.compressor.outcome import CompressionReport, VariantOutcome
from flyweight.compressor.published import describe_published
from flyweight.compressor.records import record_folder, write_record
from flyweight.compressor.safety.triggers import Concentration, TriggerCheck
from flyweight.compressor.table import print_report
from flyweight.protos.errors import RepositoryError
from flyweight.protos.manifest.v1 import manifest_pb2 as pb
from flyweight.protos.variant import MODEL_FILE, publish_variant

CONCENTRATION = Concentration("dark square", 3, 0.9, 0.1, 50, 1e-9)
FIGURES = {
    "accuracy": 0.94, "agreement": 0.97, "ece": 0.03, "accuracy_low": 0.92, "accuracy_high": 0.96,
    "mcnemar_p": 0.04, "mcnemar_better": 2.0, "mcnemar_worse": 9.0, "churn": 0.03,
}  # fmt: skip
QUALITY = Quality(
    "accuracy", 0.94, 0.95, 700, FIGURES, (0.92, 0.96), (0.93, 0.97), (-0.02, -0.001), mcnemar(2, 9),
    Churn(0.03, 0.0157, 2, 9), 0.03, 0.02, "logits", (ClassFigures(0, 0.9, 0.8, 0.85, 70, 0.9),),
)  # fmt: skip
EVALUATION = Evaluation(
    1_000_000, 250_000, 4_000_000, replace(QUALITY, value=0.95),
    (LatencyPoint(1, 0.01, 0.02, 0.01, 1, 1, 1, 9), LatencyPoint(8, 0.05, 0.09, 0.05, 1, 1, 1, 9)), 5_000_000,
)  # fmt: skip
SMALL = replace(
    EVALUATION,
    file_bytes=250_000,
    quality=QUALITY,
    latency=(
        LatencyPoint(1, 0.004, 0.006, 0.01, 2.5, 2.4, 2.6, 9),
        LatencyPoint(8, 0.02, 0.03, 0.05, 2.5, 2.4, 2.6, 9),
    ),
    compressed_bytes=200_000,
    load=LoadTime(0.02, 0.03, 5),
    energy=Energy(0.07, 0.02, "processor seconds x 3.5 W"),
    robustness=Robustness({"noise": {1: 0.99, 2: None}}, {"noise": {1: 0.9, 2: 0.0}}, "accuracy", 256),
    stability=Stability(100, 2.0, True, True, False, 0.0, 1.01),
    trigger=TriggerCheck((), CONCENTRATION, 45, 256, 1e-5),
)
REASON = "2.50 times the speed at batch 1 and 25% of the file."
NOTHING = VariantOutcome("broken", "pruned", Verdict(published=False, reason="It could not be made."))


def report_of(repository: Path, *others: VariantOutcome) -> CompressionReport:
    baseline = VariantOutcome(
        "baseline", "original", Verdict(published=True, reason="As given."), EVALUATION, repository
    )
    small = VariantOutcome(
        "small", "static int8", Verdict(published=True, reason="Fast."), SMALL, repository, ("static-int8",)
    )
    return CompressionReport(
        "net", repository, "small", 700, "d", 1, (baseline, small, *others), recommended_reason=REASON
    )


def test_the_document_has_every_key_and_is_plain_json(tmp_path: Path) -> None:
    document = report_of(tmp_path, NOTHING).document()
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    baseline, small, broken = document["variants"]
    assert set(baseline) == set(small) == set(broken)
    assert document["recommended_reason"].startswith("2.50 times the speed at batch 1 and 25% of the file")
    quality = small["quality"]
    assert quality["interval"] == [0.92, 0.96]
    assert quality["mcnemar"] == {"p_value": pytest.approx(mcnemar(2, 9).p_value), "better": 2, "worse": 9}
    assert (quality["churn"], quality["ece"]) == (0.03, 0.03)
    assert quality["per_class"] == [
        {"class": 0, "precision": 0.9, "recall": 0.8, "f1": 0.85, "support": 70, "baseline_recall": 0.9}
    ]
    assert small["latency"]["8"]["threads"] == 1
    assert small["latency"]["8"]["ratio_interval"] == [2.4, 2.6]
    assert (small["compressed_bytes"], small["load_ms"], small["energy_mj"]) == (
        200_000,
        20.0,
        pytest.approx(70),
    )
    assert small["energy"] == {"estimate": True, "method": "processor seconds x 3.5 W", "cpu_ms": 20.0}
    assert small["robustness"] == {"noise": {"1": 0.99, "2": None}}
    assert small["stability"]["equal_across_threads"] is False
    assert small["trigger"]["passed"] is True
    assert small["trigger"]["worst"]["class"] == 3
    assert baseline["trigger"] is None


def test_a_printed_report_is_the_table_and_what_is_recommended(tmp_path: Path) -> None:
    text = str(report_of(tmp_path, NOTHING))
    assert len(text.splitlines()) < 12
    assert max(map(len, text.splitlines())) < 110
    for words in (
        "variant",
        "baseline",
        "small",
        "2.50x",
        "broken was not published: It could",
        f"  {REASON}",
    ):
        assert words in text


def test_a_report_and_its_variants_are_one_line_each_where_python_shows_them(tmp_path: Path) -> None:
    report = report_of(tmp_path, NOTHING)
    assert repr(report) == "CompressionReport('net', 3 variants, 2 published, recommended='small')"
    assert repr(report.variants) == (
        "(VariantOutcome('baseline', published), VariantOutcome('small', published), "
        "VariantOutcome('broken', refused))"
    )


def test_a_speed_that_cannot_be_told_from_the_baselines_is_called_the_same(tmp_path: Path) -> None:
    point = replace(SMALL.latency[0], speedup=1.01, speedup_low=0.98, speedup_high=1.04)
    even = VariantOutcome(
        "even", "fp16", Verdict(published=True, reason=""), replace(SMALL, latency=(point,))
    )
    text = str(report_of(tmp_path, even))
    (line,) = [line for line in text.splitlines() if line.strip().startswith("even")]
    assert " same " in line
    assert "1.01x" not in line
    assert "same: no measurable difference in speed" in text
    assert "same:" not in str(report_of(tmp_path))


def test_the_table_fits_100_columns_whatever_the_names(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    huge = replace(SMALL, file_bytes=123_456_789, pss_bytes=12_345_678_900)
    long = VariantOutcome("a-name-that-goes-on-and-on-and-on", "", NOTHING.verdict, huge)
    print_report(report_of(tmp_path, NOTHING, long))
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line.startswith((" variant", " baseline", " small", " a-name"))]
    assert len(table) == 4
    assert max(len(line.rstrip()) for line in table) <= 100
    assert "…" in table[3]
    assert "123 MB" in table[3]
    assert "12.3 GB" in table[3]
    assert "0.9400" in table[2]
    assert "-0.0100" in table[2]
    assert "4.00x" in table[2]


def test_the_reasons_follow_the_table(tmp_path: Path, capsys) -> None:
    print_report(report_of(tmp_path, NOTHING))
    told = capsys.readouterr().out
    assert "broken was not published: It could not be made." in told
    assert "Recommended: small\n  2.50 times the speed" in told


def publish(repository: Path, name: str, found: Evaluation, parent: str = "") -> None:
    manifest = pb.VariantManifest(
        model="net",
        variant=name,
        lineage=pb.Lineage(parent=parent, data_sha256="d"),
        quality=pb.Quality(
            metric="accuracy", value=found.quality.value, baseline_value=0.95, samples=700, figures=FIGURES
        ),
        footprint=pb.Footprint(file_bytes=found.file_bytes),
        latencies=[
            pb.LatencyMeasurement(batch=point.batch, threads=1, p50_seconds=1, speedup=point.speedup)
            for point in found.latency
        ],
    )
    publish_variant(repository, manifest, lambda folder: (folder / MODEL_FILE).write_bytes(b"x") and None)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    publish(tmp_path, "baseline", EVALUATION)
    publish(tmp_path, "small", SMALL, "baseline")
    return tmp_path


def test_manifests_alone_tell_the_figures_with_their_intervals(repository: Path) -> None:
    small = describe_published(repository, "net")["variants"][1]
    assert small["quality"]["interval"] == [0.92, 0.96]
    assert small["quality"]["baseline_interval"] is None
    assert small["quality"]["mcnemar"] == {"p_value": 0.04, "better": 2, "worse": 9}
    assert (small["quality"]["churn"], small["quality"]["flipped"]) == (0.03, None)


def test_the_record_adds_details_and_what_was_refused(repository: Path) -> None:
    write_record(report_of(repository, NOTHING))
    document = describe_published(repository, "net")
    assert [variant["name"] for variant in document["variants"]] == ["baseline", "small", "broken"]
    assert document["recommended_reason"].startswith("2.50 times")
    small, broken = document["variants"][1:]
    assert small["robustness"] == {"noise": {"1": 0.99, "2": None}}
    assert small["path"] == str(repository / "net" / "small")
    assert (broken["published"], broken["reason"], broken["path"]) == (False, "It could not be made.", None)


def test_a_variant_published_since_is_told_by_its_manifest(repository: Path) -> None:
    write_record(report_of(repository))
    publish(repository, "small", replace(SMALL, file_bytes=77), "baseline")
    small = describe_published(repository, "net")["variants"][1]
    assert small["bytes"] == 77
    assert "robustness" not in small


def test_a_variant_whose_files_were_changed_is_told_of_first(repository: Path) -> None:
    (repository / "net" / "small" / MODEL_FILE).write_bytes(b"y")
    notes = describe_published(repository, "net")["variants"][1]["notes"]
    assert "where the manifest says" in notes[0]


def test_a_variant_that_is_gone_is_not_told_of(repository: Path) -> None:
    write_record(report_of(repository))
    (repository / "net" / "small").rename(repository / "elsewhere")
    assert [v["name"] for v in describe_published(repository, "net")["variants"]] == ["baseline"]


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"variants": 3}', '{"data": {"digest": "d"}, "variants": [1, {}]}', '{"data": []}']
)
def test_a_record_that_is_none_changes_nothing(repository: Path, text: str) -> None:
    before = describe_published(repository, "net")
    record_folder(repository, "net").mkdir()
    (record_folder(repository, "net") / "report.json").write_text(text)
    assert describe_published(repository, "net") == before


def test_the_record_of_a_run_on_other_data_adds_nothing(repository: Path) -> None:
    write_record(replace(report_of(repository, NOTHING), data_digest="other"))
    assert len(describe_published(repository, "net")["variants"]) == 2


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError, match="no model 'net'"):
        describe_published(tmp_path, "net")
    (tmp_path / "net").mkdir()
    with pytest.raises(RepositoryError, match="No variant"):
        describe_published(tmp_path, "net")
