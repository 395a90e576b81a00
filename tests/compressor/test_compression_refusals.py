"""What cannot be compressed is refused in a sentence, before anything is written."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from flyweight.compressor.compression import compress
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import DataError, ModelError, RecipeError
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.options import Options
from flyweight.compressor.passes.quantize import Fp16Storage
from flyweight.protos.errors import RepositoryError

pytestmark = pytest.mark.usefixtures("no_memory_processes")

# Tiny networks are all overhead: what is tested here is not whether int8 pays off on them.
LENIENT = Limits(max_drop=1.0, max_slowdown=1000.0, max_bytes_ratio=1000.0)
QUICK = EvaluationSettings.quick()
FAST = Options(seconds_per_point=0.02, limits=LENIENT, evaluation=QUICK, explain=False)


def test_a_model_that_is_missing_leaves_the_repository_alone(rows, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        compress(tmp_path / "nowhere.onnx", data=rows(x=(4,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


def test_data_that_do_not_fit_are_refused_before_anything_is_written(models, rows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'x' is \[samples, 3\]"):
        compress(models.mlp(), data=rows(x=(3,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


def test_another_model_of_this_name_is_not_replaced(models, rows, tmp_path: Path) -> None:
    compress(models.mlp(), {}, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST)
    with pytest.raises(RepositoryError, match="holds another model, whose inputs are x"):
        compress(
            models.convnet(),
            {},
            data=rows(image=(3, 16, 16)),
            repository=tmp_path / "r",
            name="net",
            options=FAST,
        )


def test_a_repository_that_is_a_file_is_refused(models, rows, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("not a folder")
    with pytest.raises(RepositoryError, match="cannot be written"):
        compress(models.mlp(), {}, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST)


@pytest.mark.parametrize("name", ["baseline", "a/b", ".hidden", ""])
def test_a_recipe_may_not_take_just_any_name(name: str, models, rows, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        compress(
            models.mlp(),
            {name: Fp16Storage()},
            data=rows(x=(16,)),
            repository=tmp_path / "r",
            name="net",
            options=FAST,
        )


@pytest.mark.parametrize(
    ("labels", "options", "words"),
    [
        (np.arange(64) % 2 + 9, FAST, "Label 10 is no class"),
        (np.full(64, 3), FAST, "All 64 labels are 3: a model that always answers this would look perfect"),
        (np.arange(63), FAST, "different numbers of samples"),
        (np.full((64, 10), 1e308), FAST, "R2 cannot be computed"),
        (None, Options(output="nope"), "no output 'nope'; its outputs are scores"),
        (None, Options(training=DataSet({"z": np.zeros((9, 16))})), "The training data do not fit the model"),
    ],
)
def test_bad_input_leaves_no_repository_behind(labels, options: Options, words: str, models, rows, tmp_path):
    data = dict(rows(x=(16,)).inputs)
    if labels is not None:
        data["label"] = labels
    with pytest.raises(DataError, match=words):
        compress(models.mlp(), data=data, repository=tmp_path / "r" / "deeper", name="net", options=options)
    assert not (tmp_path / "r").exists()


def test_weights_in_double_precision_are_the_reason_given(rows, tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((16, 8)), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "double",
        [onnx.helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n", 16])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.DOUBLE, ["n", 8])],
        [weight],
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    onnx.save_model(model, tmp_path / "double.onnx")
    data = DataSet({"x": rows(x=(16,)).inputs["x"].astype(np.float64)})
    path = tmp_path / "double.onnx"
    report = compress(path, data=data, repository=tmp_path / "r", name="net", options=FAST)
    found = {variant.name: (variant.path, variant.verdict.reason) for variant in report.variants}
    assert found["int8"][1] == found["int8-dynamic"][1]
    assert "weights are float64; give the model in fp32" in found["int8"][1]


@pytest.mark.parametrize(
    "given",
    [
        {"seed": -1},
        {"threads": 0},
        {"threads": 100_000},
        {"seconds_per_point": float("nan")},
        {"seconds_per_point": float("inf")},
        {"calibration_samples": 0},
    ],
)
def test_options_without_a_meaning_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="is from"):
        Options(**given)


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (None, "7 samples and 8 are the fewest that say anything"),
        ("size<=50%", "7 samples and 8 are the fewest that say anything"),
    ],
)
def test_fewer_than_eight_samples_say_nothing(plan, words: str, models, rows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=words):
        compress(models.mlp(), plan, data=rows(samples=7, x=(16,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not-a-number"), (np.inf, "infinite values")])
def test_broken_weights_are_refused_by_name(value: float, words: str, models, rows, tmp_path: Path) -> None:
    graph = onnx.load(models.mlp())
    weight = numpy_helper.to_array(graph.graph.initializer[0]).copy()
    weight[3, 4] = value
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w1"))
    path = save_graph(graph, tmp_path / "broken.onnx")
    with pytest.raises(ModelError, match=f"'w1' holds {words}"):
        compress(path, data=rows(x=(16,)), repository=tmp_path / "r", name="net")
    assert not (tmp_path / "r").exists()


def one_node(path: Path, operator: str, width: int, *constants: onnx.TensorProto) -> Path:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(operator, ["x", *(constant.name for constant in constants)], ["y"])],
        "one",
        [onnx.helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [onnx.helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
        constants,
    )
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
    return save_graph(model, path)


def test_a_model_that_answers_with_not_a_number_is_refused(rows, tmp_path: Path) -> None:
    path = one_node(tmp_path / "sqrt.onnx", "Sqrt", 4)
    with pytest.raises(ModelError, match=r"answers with not-a-number \(\d+ of 128 values of its output 'y'"):
        compress(path, {}, data=rows(x=(4,)), repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


def test_a_model_that_fails_is_refused(rows, tmp_path: Path) -> None:
    path = one_node(
        tmp_path / "fails.onnx", "Reshape", 3, numpy_helper.from_array(np.array([-1, 3]), "shape")
    )
    with pytest.raises(ModelError, match="cannot run on this input"):
        compress(path, data=rows(x=(4,)), repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()


def test_a_place_that_cannot_be_published_to_is_refused_before_a_search(models, rows, tmp_path: Path) -> None:
    (tmp_path / "r").write_text("not a folder")
    with pytest.raises(RepositoryError, match="cannot be written"):
        compress(models.mlp(), "size<=50%", data=rows(x=(16,)), repository=tmp_path / "r", name="net")


@pytest.mark.torch
@pytest.mark.parametrize(("value", "words"), [(float("nan"), "not-a-number"), (float("inf"), "infinite")])
def test_broken_weights_of_a_module_are_refused_by_name(
    value: float, words: str, rows, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Linear(16, 4), torch.nn.ReLU())
    with torch.no_grad():
        module[0].weight[1, 2] = value
    with pytest.raises(ModelError, match=f"weight '0.weight' holds {words}"):
        compress(module, data=rows(x=(16,)), repository=tmp_path / "r", name="net", options=FAST)
    assert not (tmp_path / "r").exists()
