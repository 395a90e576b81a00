"""A recipe that would train for longer than there is time for leaves the others their turn."""

import time
from dataclasses import dataclass
from typing import ClassVar

import pytest

from flyweight.compressor.compression import compress
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.options import Options
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("no_memory_processes")]


@dataclass(frozen=True, slots=True)
class Endless(Pass):
    """Trains until the time is up."""

    name: ClassVar[str] = "endless"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.TORCH

    def apply(self, model, context) -> PassResult:
        while True:
            context.check_time()
            time.sleep(0.01)


def test_the_others_are_measured_and_published_all_the_same(digits, tmp_path) -> None:
    pytest.importorskip("torch")
    path, data = digits
    options = Options(
        seconds_per_point=0.02,
        evaluation=EvaluationSettings.quick(),
        explain=False,
        time_limit_seconds=6.0,
    )
    recipes = {"endless": Endless(), "int8": StaticInt8(), "fp16": Fp16Storage()}
    report = compress(path, recipes, data=data, repository=tmp_path / "r", name="m", options=options)
    assert "The time limit came" in report.variant("endless").verdict.reason
    assert report.variant("endless").path is None
    for name in ("int8", "fp16"):
        assert report.variant(name).evaluation is not None, report.variant(name).verdict.reason
        assert report.variant(name).path is not None, report.variant(name).verdict.reason
