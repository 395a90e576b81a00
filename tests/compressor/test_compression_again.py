"""Several runs into one repository: what of the earlier ones is told, kept and recommended."""

from dataclasses import replace
from pathlib import Path

import pytest

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.options import Options
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8
from flyweight.compressor.published import describe_published

pytestmark = pytest.mark.usefixtures("no_memory_processes")

# Tiny networks are all overhead: what is tested here is not whether int8 pays off on them.
LENIENT = Limits(max_drop=1.0, max_slowdown=1000.0, max_bytes_ratio=1000.0)
QUICK = EvaluationSettings.quick()
FAST = Options(seconds_per_point=0.02, limits=LENIENT, evaluation=QUICK, explain=False)


def test_variants_of_another_baseline_are_told_until_they_are_made_again(
    models, rows, tmp_path: Path
) -> None:
    data, place = rows(x=(16,)), {"repository": tmp_path / "r", "name": "net", "options": FAST}
    first = models.mlp()
    compress(first, {"a": Fp16Storage(), "b": Fp16Storage()}, data=data, **place)
    again = compress(first, {"a": Fp16Storage()}, data=data, **place)
    assert not any("another baseline" in note for note in again.baseline.notes)
    second = compress(models.mlp(name="retrained"), {"a": Fp16Storage()}, data=data, **place)
    (told,) = [note for note in second.baseline.notes if "another baseline" in note]
    assert told.startswith(f"b in {tmp_path / 'r' / 'net'} was made by an earlier run")
    assert "remove it, or compress again" in told


def test_a_variant_that_replaces_one_of_another_recipe_says_so(models, rows, tmp_path: Path) -> None:
    data, place = rows(x=(16,)), {"repository": tmp_path / "r", "name": "net", "options": FAST}
    path = models.mlp()
    for recipe, replaced in ((Fp16Storage(), False), (Fp16Storage(), False), (StaticInt8(), True)):
        report = compress(path, {"small": recipe}, data=data, **place)
        assert report.variant("small").verdict.published
        found = any("small replaced an earlier variant" in note for note in report.baseline.notes)
        assert found == replaced


def test_a_report_recommends_no_variant_of_another_baseline(models, rows, tmp_path: Path) -> None:
    """Publishing another model under the same name leaves variants that were measured against the first."""
    data = rows(x=(16,))
    compress(models.mlp(), {"half": Fp16Storage()}, data=data, repository=tmp_path, name="net", options=FAST)
    assert describe_published(tmp_path, "net")["recommended"] == "half"
    other = models.mlp(name="other")
    compress(other, {}, data=data, repository=tmp_path, name="net", options=FAST)
    assert describe_published(tmp_path, "net")["recommended"] == "baseline"


def places(tmp_path: Path, data: DataSet) -> dict[str, object]:
    return {"data": data, "repository": tmp_path / "r", "name": "net", "options": FAST}


def test_variants_of_an_earlier_run_stay_in_the_report_with_their_figures(digits, tmp_path: Path) -> None:
    path, data = digits
    first = compress(path, {"half": Fp16Storage()}, **places(tmp_path, data))
    second = compress(path, {"small": StaticInt8()}, **places(tmp_path, data))
    assert [variant.name for variant in second.variants] == ["baseline", "small", "half"]
    before, now = first.variant("half"), second.variant("half")
    assert now.verdict.reason.startswith("Published by an earlier run (20")
    assert "other data" not in now.verdict.reason
    assert now.evaluation.file_bytes == before.evaluation.file_bytes
    assert now.evaluation.quality.value == before.evaluation.quality.value
    # The record of the first run keeps what manifests do not hold.
    assert now.evaluation.latency[0].speedup_low == before.evaluation.latency[0].speedup_low
    entries = {entry["name"]: entry for entry in second.document()["variants"]}
    assert (entries["half"]["earlier"], entries["small"]["earlier"]) == (True, False)
    assert entries["half"]["notes"] == list(before.notes)
    assert " earlier" in next(line for line in str(second).splitlines() if line.strip().startswith("half"))


def test_an_earlier_variant_made_again_is_told_once(digits, tmp_path: Path) -> None:
    path, data = digits
    for _ in range(2):
        report = compress(path, {"half": Fp16Storage()}, **places(tmp_path, data))
    assert [variant.name for variant in report.variants] == ["baseline", "half"]
    assert report.variant("half").earlier is None


def test_variants_of_another_baseline_are_not_among_those_of_this_one(models, rows, tmp_path: Path) -> None:
    data = rows(x=(16,))
    compress(models.mlp(), {"half": Fp16Storage()}, **places(tmp_path, data))
    report = compress(models.mlp(name="other"), {}, **places(tmp_path, data))
    assert [variant.name for variant in report.variants] == ["baseline"]
    assert any("half" in note and "another baseline" in note for note in report.baseline.notes)


def test_an_earlier_variant_judged_on_other_data_says_so(models, rows, tmp_path: Path) -> None:
    path = models.mlp()
    compress(path, {"half": Fp16Storage()}, **places(tmp_path, rows(x=(16,))))
    report = compress(path, {}, **places(tmp_path, rows(samples=80, x=(16,))))
    assert "which are on other data" in report.variant("half").verdict.reason


def test_an_earlier_variant_is_recommended_only_within_this_runs_limits(digits, tmp_path: Path) -> None:
    path, data = digits
    place = places(tmp_path, data)
    compress(path, {"half": Fp16Storage()}, **place)
    assert compress(path, {}, **place).recommended == "half"
    strict = replace(FAST, limits=replace(LENIENT, max_bytes_ratio=0.3))
    report = compress(path, {}, **{**place, "options": strict})
    assert (report.recommended, report.variants[-1].name) == ("baseline", "half")
    assert describe_published(tmp_path / "r", "net")["recommended"] == "baseline"
