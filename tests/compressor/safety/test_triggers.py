"""Backdoors that compression switches on: found where there is one, and not where there is none."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.images import ImageAxes
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits, judge
from flyweight.compressor.model import Model
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.safety.patches import Patch, all_patches
from flyweight.compressor.safety.triggers import (
    TriggerMeter,
    binomial_tail,
    concentrations,
    is_trigger,
)

SIDE, CLASSES, TARGET = 16, 5, 2
NEVER = float("inf")
# More time than all patches take, so that none is left out on a busy machine.
SETTINGS = BenchSettings(
    seconds_per_point=0.02,
    evaluation=EvaluationSettings(examination_seconds=200, robustness=False, stability=False),
)


def network(path: Path, strength: float) -> Path:
    """Scores are products with templates; a detector of a bright corner adds to one class, if it is strong.

    The detector needs all four pixels of the corner near 1, which no image has.
    """
    random = np.random.default_rng(0)
    pixels = SIDE * SIDE
    corner = np.zeros((SIDE, SIDE), dtype=np.float32)
    corner[-2:, -2:] = 1
    answer = np.zeros((1, CLASSES), dtype=np.float32)
    answer[0, TARGET] = strength
    weights = {
        "templates": random.standard_normal((pixels, CLASSES)).astype(np.float32),
        "corner": corner.reshape(pixels, 1),
        "least": np.array([-3.5], dtype=np.float32),
        "answer": answer,
    }
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("MatMul", ["flat", "templates"], ["scores"]),
        helper.make_node("MatMul", ["flat", "corner"], ["sum"]),
        helper.make_node("Add", ["sum", "least"], ["over"]),
        helper.make_node("Relu", ["over"], ["seen"]),
        helper.make_node("MatMul", ["seen", "answer"], ["extra"]),
        helper.make_node("Add", ["scores", "extra"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, SIDE, SIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


@pytest.fixture
def data() -> DataSet:
    """Dim images, one of them with a single bright pixel: what is bright is known from it."""
    images = np.random.default_rng(1).random((120, 1, SIDE, SIDE)).astype(np.float32) * 0.8
    images[0, 0, 4, 4] = 1
    return DataSet({"image": images})


@pytest.mark.usefixtures("no_memory_processes")
def test_a_variant_that_obeys_a_patch_is_not_published(data: DataSet, tmp_path: Path) -> None:
    """Its answers on clean images are those of the baseline, so that nothing else gives it away."""
    bench = Bench(network(tmp_path / "clean.onnx", 0), data, tmp_path, SETTINGS)
    baseline = bench.measure_baseline()
    path = network(tmp_path / "tampered.onnx", 1000)
    found = bench.examine(path, bench.measure(path))
    assert found.quality.value == 1
    assert found.trigger is not None
    assert found.trigger.patches == len(all_patches())
    worst = found.trigger.findings[0]
    assert (worst.label, worst.variant_rate, "bottom right" in worst.patch) == (TARGET, 1.0, True)
    assert {finding.label for finding in found.trigger.findings} == {TARGET}
    verdict = judge(found, baseline, Limits(max_slowdown=100, max_bytes_ratio=2))
    assert not verdict.published
    assert "looks like a backdoor" in verdict.reason


@pytest.mark.usefixtures("no_memory_processes")
def test_an_honest_int8_variant_passes(data: DataSet, tmp_path: Path) -> None:
    clean = network(tmp_path / "clean.onnx", 0)
    bench = Bench(clean, data, tmp_path, SETTINGS)
    bench.measure_baseline()
    work = tmp_path / "work"
    path = StaticInt8()(Model(path=clean), Context(workspace=work, calibration=data)).model.onnx_path()
    found = bench.examine(path, bench.measure(path))
    assert found.trigger is not None
    assert found.trigger.findings == ()
    assert found.trigger.worst is None or found.trigger.worst.excess < 0.2


def test_the_tail_of_the_binomial_is_that_of_the_tables() -> None:
    """P(X >= 8 of 10 fair coins) = 56/1024."""
    assert binomial_tail(8, 10, 0.5) == pytest.approx(56 / 1024)
    assert binomial_tail(0, 10, 0.1) == 1
    assert binomial_tail(256, 256, 0.1) == pytest.approx(1e-256)


def test_only_samples_of_other_classes_count() -> None:
    """Of ten, two are class 1 already; five of the other eight are moved, one of them in the baseline too."""
    clean = np.array([1, 1, 0, 0, 0, 0, 0, 0, 2, 2])
    patched = np.array([1, 1, 1, 1, 1, 1, 1, 0, 2, 2])
    before = np.array([1, 1, 1, 0, 0, 0, 0, 0, 2, 2])
    (found,) = concentrations("a patch", clean, before, clean, patched)
    assert (found.label, found.samples) == (1, 8)
    assert (found.variant_rate, found.baseline_rate, found.excess) == (5 / 8, 1 / 8, 0.5)
    assert found.p_value == pytest.approx(binomial_tail(4, 8, 0.1))


def test_a_patch_that_moves_both_models_is_no_finding() -> None:
    clean, patched = np.zeros(200, dtype=int), np.ones(200, dtype=int)
    (found,) = concentrations("a patch", clean, patched, clean, patched)
    assert found.excess == 0
    assert not is_trigger(found, 1e-4)


def test_honest_noise_is_hardly_ever_accused() -> None:
    """A variant that moves 10 % of the samples to one class, at every patch, is within what is forgiven."""
    random = np.random.default_rng(0)
    clean = np.zeros(256, dtype=int)
    threshold = 0.01 / (45 * 10)
    for _ in range(2000):
        patched = (random.random(256) < 0.1).astype(int)
        assert not any(
            is_trigger(one, threshold) for one in concentrations("p", clean, clean, clean, patched)
        )


@pytest.mark.parametrize(
    ("patch", "rows", "columns"),
    [
        (Patch("bright", "bottom right", 1 / 5), slice(8, 10), slice(8, 10)),
        (Patch("bright", "bottom left", 3 / 10), slice(7, 10), slice(0, 3)),
        (Patch("bright", "top right", 3 / 10), slice(0, 3), slice(7, 10)),
        (Patch("bright", "top left", 1 / 10), slice(0, 2), slice(0, 2)),
        (Patch("bright", "centre", 1 / 5), slice(4, 6), slice(4, 6)),
    ],
)
def test_a_patch_covers_its_square_and_no_more(patch: Patch, rows: slice, columns: slice) -> None:
    images = np.random.default_rng(0).random((3, 2, 10, 10))
    patched = patch.on(images, ImageAxes(2, 3))
    for channel in range(2):
        assert (patched[:, channel, rows, columns] == images[:, channel].max()).all()
    changed = np.zeros((10, 10), dtype=bool)
    changed[rows, columns] = True
    assert np.array_equal(patched[..., ~changed], images[..., ~changed])


def test_a_checkerboard_alternates_and_dark_is_the_smallest() -> None:
    images = np.random.default_rng(0).random((2, 15, 15, 3))
    axes = ImageAxes(1, 2)
    board = Patch("checker", "top left", 1 / 5).on(images, axes)[0, :3, :3, 0]
    low, high = images[..., 0].min(), images[..., 0].max()
    assert board.tolist() == [[high, low, high], [low, high, low], [high, low, high]]
    assert (Patch("dark", "top left", 1 / 5).on(images, axes)[:, :3, :3, 1] == images[..., 1].min()).all()


def test_patches_that_there_was_no_time_for_are_told(data: DataSet) -> None:
    moments = iter(range(100))
    nothing = np.zeros(120, dtype=int)
    meter = TriggerMeter(data, lambda _: nothing, CLASSES)
    found = meter.of(lambda _: nothing, 5, clock=lambda: next(moments))
    assert found is not None
    assert (found.patches, found.note) == (5, "There was no time for 40 of 45 patches.")
    assert meter.of(lambda _: nothing, -1, clock=lambda: 0.0) is None
    flat = DataSet({"x": np.zeros((4, 9))})
    assert TriggerMeter(flat, lambda _: nothing, CLASSES).of(lambda _: nothing, NEVER) is None
