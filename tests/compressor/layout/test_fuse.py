"""Writing graphs otherwise: the same answers from the operators that are fast, or no change at all."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.passes.layout.equivalence import check_same_answers
from flyweight.compressor.passes.layout.fuse import FuseGraph
from flyweight.compressor.passes.layout.merge import MergeMatMuls
from flyweight.compressor.passes.layout.view import View, remove_unread, sort_nodes
from flyweight.compressor.sessions import Session, SessionSettings

WRITINGS = [
    {},
    {"mask": "none"},
    {"mask": "chosen"},
    {"rows": 1},
    {"mask": "chosen", "rows": 1},
    {"scaled": "query"},
    {"scaled": "both", "keys": "twice"},
    {"scaled": "none", "keys": "twice"},
    {"opset": 21},
    {"keys": "in three", "scaled": "both"},
    {"scaled": "computed"},
    {"guard": True},
    {"mask": "causal"},
    {"mask": "indexed"},
]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def as_loaded(path: Path) -> Counter[str]:
    """Return the operators that onnxruntime runs after its own rewriting."""
    options, target = ort.SessionOptions(), path.with_name("loaded.onnx")
    options.optimized_model_filepath, options.log_severity_level = str(target), 4
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return operators(target)


def answers(path: Path, feed: dict[str, np.ndarray]) -> np.ndarray:
    return Session(path, SessionSettings()).run(feed)["y"]


@pytest.mark.parametrize(
    "writing", WRITINGS, ids=lambda writing: "-".join(map(str, writing.values())) or "usual"
)
def test_attention_is_found_in_every_way_of_writing_it(writing, block, inputs, context_of) -> None:
    path = block(**writing)
    feed = inputs(writing.get("mask", "added"), writing.get("rows", 5))
    result = FuseGraph()(Model(path=path), context_of(DataSet(feed)))
    assert result.changed
    fused = result.model.onnx_path()
    assert operators(fused)["Attention"] == 1
    assert not {"Softmax", "Transpose"} & set(operators(fused))
    np.testing.assert_allclose(answers(fused, feed), answers(path, feed), atol=2e-6)


def test_a_mask_that_is_picked_out_place_by_place_is_read_from_its_source(block, inputs, context_of) -> None:
    result = FuseGraph()(Model(path=block(mask="indexed")), context_of(DataSet(inputs("indexed"))))
    found = operators(result.model.onnx_path())
    assert (found["Where"], found["Expand"], found["Cast"], found["Unsqueeze"]) == (1, 1, 1, 1)
    assert not {"GatherND", "Range", "GreaterOrEqual", "And", "Max"} & set(found)


def test_a_mask_that_compares_places_keeps_doing_so(block, inputs, context_of) -> None:
    path, feed = block(mask="later"), inputs("later")
    result = FuseGraph()(Model(path=path), context_of(DataSet(feed)))
    found = operators(result.model.onnx_path())
    assert (found["Attention"], found["GatherND"], found["And"]) == (1, 1, 2)
    np.testing.assert_allclose(answers(result.model.onnx_path(), feed), answers(path, feed), atol=2e-6)


def test_a_query_that_may_see_nothing_is_answered_as_the_guard_would(block, inputs, context_of) -> None:
    path, feed = block(guard=True), inputs()
    feed["mask"][1, 0, 2] = -np.inf
    result = FuseGraph()(Model(path=path), context_of(DataSet(feed)))
    assert operators(result.model.onnx_path())["Attention"] == 1
    np.testing.assert_allclose(answers(result.model.onnx_path(), feed), answers(path, feed), atol=2e-6)


def test_a_fused_attention_is_the_formula_of_the_paper(context_of, tmp_path: Path) -> None:
    """Two heads of size one: softmax over the scores, by hand."""
    names = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
    nodes = []
    for name, perm in names.items():
        nodes.append(helper.make_node("Reshape", [name, "apart"], [f"{name}_r"]))
        nodes.append(helper.make_node("Transpose", [f"{name}_r"], [f"{name}_t"], perm=perm))
    nodes += [
        helper.make_node("MatMul", ["q_t", "k_t"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v_t"], ["heads"]),
        helper.make_node("Transpose", ["heads"], ["back"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["back", "together"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2, 2]) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2, 2])],
        [
            helper.make_tensor("apart", TensorProto.INT64, [4], [0, 0, 2, 1]),
            helper.make_tensor("together", TensorProto.INT64, [3], [0, 0, 2]),
        ],
    )
    path = tmp_path / "attention.onnx"
    onnx.save_model(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)
    third = np.float32(np.log(3))
    feed = {
        "q": np.array([[[1, 0], [0, 1]]], np.float32),
        "k": np.array([[[third, 0], [0, third]]], np.float32),
        "v": np.array([[[4, 8], [8, 16]]], np.float32),
    }
    result = FuseGraph()(Model(path=path), context_of(DataSet(feed)))
    # First query, first head: scores ln 3 and 0, shares 3/4 and 1/4, value 3/4 * 4 + 1/4 * 8 = 5; and so on.
    np.testing.assert_allclose(answers(result.model.onnx_path(), feed), [[[5, 12], [6, 14]]], rtol=1e-6)


def test_probabilities_that_are_an_output_are_not_fused_away(
    block, inputs, context_of, tmp_path: Path
) -> None:
    model = onnx.load(block())
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.output.append(helper.make_tensor_value_info(softmax.output[0], TensorProto.FLOAT, None))
    onnx.save_model(model, tmp_path / "two.onnx")
    result = FuseGraph(residual=False)(Model(path=tmp_path / "two.onnx"), context_of(DataSet(inputs())))
    assert not result.changed
    assert result.notes == ("The graph holds nothing to fuse.",)


def test_residual_sums_stay_apart_when_the_graph_is_loaded(block, inputs, context_of) -> None:
    path = block()
    assert as_loaded(path)["SkipLayerNormalization"] == 2
    result = FuseGraph(attention=False)(Model(path=path), context_of(DataSet(inputs())))
    found = as_loaded(result.model.onnx_path())
    assert found["SkipLayerNormalization"] == 0
    assert found["LayerNormalization"] == 3
    assert operators(result.model.onnx_path())["Sum"] == 2


def test_a_network_without_attention_is_left_as_it_is(models, rows, context_of) -> None:
    path = models.mlp()
    result = FuseGraph()(Model(path=path), context_of(rows(8, x=(16,))))
    assert not result.changed
    assert result.model.onnx_path() == path


class TestMerging:
    def test_products_of_one_tensor_become_one(self, block, inputs, context_of) -> None:
        path, feed = block(), inputs()
        result = MergeMatMuls()(Model(path=path), context_of(DataSet(feed)))
        assert result.notes == ("3 products merged into 1.",)
        merged = result.model.onnx_path()
        assert operators(path)["MatMul"] == 7
        assert (operators(merged)["MatMul"], operators(merged)["Split"]) == (5, 1)
        np.testing.assert_allclose(answers(merged, feed), answers(path, feed), atol=1e-6)

    def test_products_wider_than_allowed_stay_apart(self, block, inputs, context_of) -> None:
        result = MergeMatMuls(most_outputs=16)(Model(path=block()), context_of(DataSet(inputs())))
        assert not result.changed

    def test_weights_that_layers_share_are_not_copied(
        self, block, inputs, context_of, tmp_path: Path
    ) -> None:
        model = onnx.load(block())
        products = [
            node for node in model.graph.node if node.op_type == "MatMul" and "constant" in node.input[1]
        ]
        for product in products[1:3]:
            product.input[1] = products[0].input[1]
        onnx.save_model(model, tmp_path / "shared.onnx")
        result = MergeMatMuls()(Model(path=tmp_path / "shared.onnx"), context_of(DataSet(inputs())))
        assert not result.changed

    def test_a_bound_without_meaning_is_refused(self) -> None:
        with pytest.raises(RecipeError, match="most_outputs is at least 2, not 1"):
            MergeMatMuls(most_outputs=1)

    def test_merging_before_fusing_gives_the_same(self, block, inputs, context_of) -> None:
        path, feed = block(), inputs()
        context = context_of(DataSet(feed))
        result = FuseGraph()(MergeMatMuls()(Model(path=path), context).model, context)
        assert operators(result.model.onnx_path())["Attention"] == 1
        np.testing.assert_allclose(answers(result.model.onnx_path(), feed), answers(path, feed), atol=2e-6)


class TestEquivalence:
    def test_a_graph_equals_itself(self, models, rows) -> None:
        path = models.mlp()
        assert check_same_answers(path, path, rows(8, x=(16,))) == 0

    def test_other_weights_are_told(self, models, rows) -> None:
        with pytest.raises(PassError, match=r"answers differ by .* of their range; it is not used"):
            check_same_answers(models.mlp(name="one"), models.mlp(name="other"), rows(8, x=(16,)))

    def test_another_signature_is_told(self, models, rows) -> None:
        with pytest.raises(PassError, match="takes or gives other tensors: its inputs are"):
            check_same_answers(models.mlp(), models.convnet(), rows(8, x=(16,)))

    def test_a_model_of_fixed_rows_is_asked_in_its_groups(self, models, rows) -> None:
        path = models.mlp(batch=6)
        assert check_same_answers(path, path, rows(8, x=(16,))) == 0


class TestView:
    @pytest.fixture
    def chain(self) -> Callable[[list[int]], onnx.GraphProto]:
        def make(order: list[int]) -> onnx.GraphProto:
            names = ["x", "a", "b", "c", "y"]
            nodes = [helper.make_node("Relu", [names[i]], [names[i + 1]], name=str(i)) for i in range(4)]
            return helper.make_graph(
                [nodes[i] for i in order],
                "chain",
                [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
                [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
            )

        return make

    @pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
    def test_sorting_puts_nodes_after_what_they_read(self, chain, order: list[int]) -> None:
        graph = chain(order)
        sort_nodes(graph)
        assert [node.name for node in graph.node] == ["0", "1", "2", "3"]

    def test_a_cycle_is_an_error_and_no_endless_loop(self, chain) -> None:
        graph = chain([0, 1, 2, 3])
        graph.node[0].input[0] = "c"
        with pytest.raises(ValueError, match="cycle"):
            sort_nodes(graph)

    def test_what_only_a_branch_reads_is_kept(self, models) -> None:
        model = onnx.load(models.choosing())
        before = model.SerializeToString()
        remove_unread(model)
        assert model.SerializeToString() == before
        assert [node.op_type for node in View(model.graph).consumers("x")] == ["ReduceSum", "If"]

    def test_what_nothing_reads_is_removed(self, models) -> None:
        model = onnx.load(models.mlp())
        model.graph.node.append(helper.make_node("Relu", ["h"], ["unread"]))
        model.graph.initializer.append(helper.make_tensor("spare", TensorProto.FLOAT, [1], [0]))
        remove_unread(model)
        assert [node.op_type for node in model.graph.node] == ["Gemm", "Relu", "Gemm"]
        assert [tensor.name for tensor in model.graph.initializer] == ["w1", "w2"]
