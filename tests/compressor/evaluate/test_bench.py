"""The bench as a whole, on small real sessions: what it measures, and what it keeps of the answers."""

from pathlib import Path

import numpy as np
import pytest

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import DataError, ModelError, RecipeError
from flyweight.compressor.evaluate.bench import Bench, BenchSettings
from flyweight.compressor.evaluate.document import describe_evaluation
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.model import Model
from flyweight.compressor.passes.quantize import Fp16Storage, StaticInt8
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.protos.coded import encode

FAST = BenchSettings(seconds_per_point=0.02, evaluation=EvaluationSettings(examination_seconds=0.5))

pytestmark = pytest.mark.usefixtures("no_memory_processes")


@pytest.fixture
def int8(digits, context_of) -> Path:
    path, data = digits
    return StaticInt8()(Model(path=path), context_of(DataSet(data.inputs))).model.onnx_path()


def test_a_labelled_variant_gets_every_figure(digits, int8: Path, tmp_path: Path) -> None:
    path, data = digits
    bench = Bench(path, data, tmp_path, FAST)
    baseline, found = bench.measure_baseline(), bench.measure(int8)
    quality = found.quality
    assert quality.interval is not None
    assert quality.baseline_interval is not None
    assert quality.interval[0] < quality.value < quality.interval[1]
    assert quality.mcnemar is not None
    assert quality.churn is not None
    gained = (quality.mcnemar.better - quality.mcnemar.worse) / 600
    assert quality.delta == pytest.approx(gained)
    assert quality.difference is not None
    assert quality.difference[0] < gained < quality.difference[1]
    assert quality.ece_of == "logits"
    assert 0 < (quality.ece or 0) < 0.2
    assert [figures.label for figures in quality.per_class] == list(range(10))
    assert sum(figures.support for figures in quality.per_class) == 600
    assert quality.figures["mcnemar_p"] == quality.mcnemar.p_value
    assert baseline.quality.churn is not None
    assert baseline.quality.churn.changed == 0
    assert found.compressed_bytes is not None
    assert found.compressed_bytes < found.file_bytes
    assert found.load is not None
    assert found.load.seconds > 0
    assert found.energy is not None
    assert found.energy.joules > 0


def test_predictions_are_kept_and_tell_which_samples_flipped(digits, int8: Path, tmp_path: Path) -> None:
    path, data = digits
    bench = Bench(path, data, tmp_path, FAST)
    before, after = bench.measure_baseline().predictions, bench.measure(int8).predictions
    assert before is not None
    assert after is not None
    assert (before.shape, after.dtype) == ((600,), np.int32)
    assert np.mean(before == data.labels) == bench.measure_baseline().quality.value


def test_without_labels_predictions_are_compared(digits, int8: Path, tmp_path: Path) -> None:
    path, data = digits
    bench = Bench(path, DataSet(data.inputs), tmp_path, FAST)
    bench.measure_baseline()
    found = bench.measure(int8)
    assert found.quality.churn is not None
    assert found.quality.churn.changed == pytest.approx(1 - found.quality.value)
    assert found.quality.interval is not None
    assert found.quality.mcnemar is None
    assert found.quality.ece is None


def test_a_regression_has_no_classes(models, rows, tmp_path: Path) -> None:
    data = rows(samples=20, x=(16,))
    path = models.mlp()
    answers = Session(path, SessionSettings()).run(data.inputs)["scores"]
    noise = 0.1 * np.random.default_rng(0).standard_normal(answers.shape)
    measured = Bench(path, DataSet(data.inputs, answers + noise), tmp_path, FAST).measure_baseline()
    assert measured.quality.metric == "r2"
    assert measured.predictions is None
    assert (measured.quality.churn, measured.quality.interval) == (None, None)


def test_values_that_the_model_does_not_answer_are_refused(models, rows, tmp_path: Path) -> None:
    data = rows(samples=20, x=(16,))
    other = DataSet(data.inputs, np.random.default_rng(0).standard_normal((20, 10)))
    with pytest.raises(DataError, match=r"float64\[10\] a sample.*values of output 'scores'.*R2 -"):
        Bench(models.mlp(), other, tmp_path, FAST).measure_baseline()


def test_labels_for_each_token_have_no_interval(models, tmp_path: Path) -> None:
    """Tokens of one sentence are not independent."""
    from onnx import TensorProto

    scores = np.random.default_rng(0).standard_normal((12, 5, 7)).astype(np.float32)
    data = DataSet({"x": scores}, scores.argmax(axis=2))
    bench = Bench(models.identity(TensorProto.FLOAT, ["n", 5, 7]), data, tmp_path, FAST)
    measured = bench.measure_baseline()
    assert measured.quality.value == 1
    assert measured.quality.interval is None
    assert measured.quality.ece is not None
    assert measured.predictions is not None
    assert measured.predictions.shape == (12, 5)


def test_of_a_coded_file_its_own_bytes_count(digits, tmp_path: Path) -> None:
    path, data = digits
    stored = tmp_path / "model.onnx.fw"
    stored.write_bytes(encode(path.read_bytes()))
    bench = Bench(path, data, tmp_path, FAST)
    baseline, found = bench.measure_baseline(), bench.measure(path, stored)
    assert found.file_bytes == stored.stat().st_size < baseline.file_bytes
    assert found.parameters == baseline.parameters
    stored.write_bytes(b"not coded at all")
    with pytest.raises(ModelError, match=r"model\.onnx\.fw"):
        bench.measure(path, stored)


def test_a_grid_has_every_batch_with_every_number_of_threads(models, rows, tmp_path: Path) -> None:
    settings = EvaluationSettings(grid_batches=(1, 4), grid_threads=(1, 2))
    bench = Bench(
        models.mlp(), rows(x=(16,)), tmp_path, BenchSettings(seconds_per_point=0.02, evaluation=settings)
    )
    baseline, found = bench.measure_baseline(), bench.measure(models.mlp(name="other"))
    for measured in (baseline, found):
        grid = [(point.batch, point.threads) for point in measured.latency_grid]
        assert grid == [(1, 1), (4, 1), (1, 2), (4, 2)]
        assert measured.latency_grid[0] == measured.latency[0]


def test_an_examination_adds_what_is_asked_for(digits, int8: Path, tmp_path: Path) -> None:
    path, data = digits
    bench = Bench(path, data, tmp_path, FAST)
    baseline, measured = bench.measure_baseline(), bench.measure(int8)
    found = bench.examine(int8, measured)
    assert found.robustness is not None
    assert set(found.robustness.kept) == {"noise"}
    assert found.stability is not None
    assert found.stability.equal_answers
    assert found.trigger is None, "rows of 64 numbers are no images"
    assert bench.examine(int8, measured, seconds=0) is measured
    part = describe_evaluation(found, baseline)
    assert part["robustness"]["noise"]["1"] == found.robustness.kept["noise"][1]
    assert part["energy"]["estimate"] is True
    assert part["quality"]["per_class"][3]["class"] == 3
    nothing = describe_evaluation(None, baseline)
    assert set(nothing) == set(part)


def test_images_are_examined_with_patches(models, rows, context_of, tmp_path: Path) -> None:
    path, data = models.convnet(), rows(samples=40, image=(3, 16, 16))
    bench = Bench(path, data, tmp_path, FAST)
    bench.measure_baseline()
    fp16 = Fp16Storage()(Model(path=path), context_of(data)).model.onnx_path()
    found = bench.examine(fp16, bench.measure(fp16))
    assert found.trigger is not None
    assert found.trigger.findings == ()
    assert found.robustness is not None
    assert found.robustness.measure == "agreement"


def test_a_model_of_whole_groups_is_examined_in_groups(models, rows, tmp_path: Path) -> None:
    path, data = models.mlp(batch=6), rows(samples=64, x=(16,))
    bench = Bench(path, data, tmp_path, FAST)
    measured = bench.measure_baseline()
    found = bench.examine(path, measured)
    assert found.robustness is not None
    assert found.robustness.samples % 6 == 0


def test_a_variant_with_other_inputs_is_refused(models, rows, tmp_path: Path) -> None:
    bench = Bench(models.mlp(), rows(x=(16,)), tmp_path, FAST)
    bench.measure_baseline()
    with pytest.raises(ModelError, match="cannot stand in"):
        bench.measure(models.convnet())


@pytest.mark.parametrize(
    "wrong", [{"batches": ()}, {"batches": (0,)}, {"grid_threads": (0,)}, {"examination_seconds": -1.0}]
)
def test_settings_without_meaning_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError):
        EvaluationSettings(**wrong)  # type: ignore[arg-type]


def test_quick_settings_examine_nothing_and_thorough_ones_all() -> None:
    assert not EvaluationSettings.quick().examines
    assert EvaluationSettings.thorough().examines
    assert EvaluationSettings().examines
