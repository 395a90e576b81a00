"""`compress` with transfer: the transferred model is the baseline, and variants are compared with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.options import Options
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.protos.variant import read_manifest

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("no_memory_processes")]

OPTIONS = Options(
    seconds_per_point=0.02,
    limits=Limits(max_drop=1.0, max_slowdown=1000.0, max_bytes_ratio=1000.0),
    evaluation=EvaluationSettings.quick(),
    explain=False,
    transfer=True,
)


def three_classes(samples: int = 3000) -> DataSet:
    """Which of three numbers is the largest: easy, and not what the model was made for."""
    x = np.random.default_rng(0).standard_normal((samples, 16)).astype(np.float32)
    return DataSet({"x": x}, x[:, :3].argmax(axis=1))


def test_an_onnx_file_of_ten_classes_becomes_a_baseline_of_three(models, tmp_path: Path) -> None:
    report = compress(
        models.mlp(),
        {"int8": StaticInt8()},
        data=three_classes(),
        repository=tmp_path / "r",
        name="net",
        options=OPTIONS,
    )
    assert report.baseline.evaluation is not None
    assert report.baseline.evaluation.quality.metric == "accuracy"
    assert report.baseline.evaluation.quality.value > 0.5
    assert report.variant("int8").verdict.published, report.variant("int8").verdict.reason
    manifest = read_manifest(tmp_path / "r" / "net" / "baseline")
    assert manifest is not None
    assert list(manifest.outputs[0].shape) == [-1, 3]
    assert any("a new head" in note for note in report.baseline.notes)


def test_data_without_labels_cannot_be_transferred_to(models, tmp_path: Path) -> None:
    data = DataSet(three_classes().inputs)
    with pytest.raises(PassError, match="label"):
        compress(models.mlp(), {}, data=data, repository=tmp_path / "r", name="net", options=replace(OPTIONS))
    assert not (tmp_path / "r").exists()
