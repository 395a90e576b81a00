"""Products of one matrix with several weights, done as one: q, k and v of an attention, for example."""

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.layout.equivalence import check_same_answers
from flyweight.compressor.passes.layout.view import View, remove_unread, sort_nodes
from flyweight.compressor.passes.quantize.preparation import prepare
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class MergeMatMuls(Pass):
    """Puts MatMuls that read the same tensor together: [x A, x B] = x [A B], and a Split after it.

    One large product keeps the processor busier than several small ones, and a quantizer after this pass
    quantizes x once; the Split copies the result. So it gains a few percent where x has few rows, and loses
    as much where it has many: measure.

    Attributes:
        most_outputs: columns of a merged weight; wider products gain nothing more.
    """

    name: ClassVar[str] = "merge-matmuls"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    most_outputs: int = 8192

    def __post_init__(self) -> None:
        """Check the option.

        Raises:
            RecipeError: it has no meaning.
        """
        if self.most_outputs < 2:
            raise RecipeError(f"most_outputs is at least 2, not {self.most_outputs}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model with its products merged, or as it was where no two read the same tensor.

        Raises:
            PassError: the result does not answer as the original does.
        """
        source = model.onnx_path()
        with quiet_tools():
            graph = prepare(source, context.new_path)
            groups = merge_matmuls(graph, self.most_outputs)
            if not groups:
                return PassResult(model, changed=False, notes=("No two MatMuls read the same tensor.",))
            path = save_graph(graph, context.new_path("merge-matmuls"))
            check_same_answers(source, path, context.calibration)
        note = f"{sum(groups)} products merged into {len(groups)}."
        return PassResult(Model(path=path), changed=True, notes=(note,))


def merge_matmuls(model: onnx.ModelProto, most_outputs: int) -> list[int]:
    """Merge MatMuls with constant weights that read the same tensor, in place; return how many each time.

    With biases b_i added to each, they are merged too: one Add of [b_1 b_2 ...]. Weights that several
    layers share stay as they are: each merged product would hold a copy.
    """
    view, readers = View(model.graph), defaultdict[tuple[str, int], list[_Product]](list)
    for node in model.graph.node:
        product = _product(view, node)
        if product is not None:
            readers[node.input[0], product.weight.shape[0]].append(product)
    merged = []
    for (source, _), products in readers.items():
        # All with a bias or none: half of them would need zeros added.
        for biased in (True, False):
            group = [product for product in products if (product.bias is not None) is biased]
            if len(group) > 1 and sum(product.weight.shape[1] for product in group) <= most_outputs:
                _merge(model.graph, source, group)
                merged.append(len(group))
    if merged:
        sort_nodes(model.graph)
        remove_unread(model)
    return merged


@dataclass(frozen=True, slots=True)
class _Product:
    """A MatMul of weight (inputs, outputs), with the Add of its bias (outputs) where there is one."""

    weight: np.ndarray[tuple[int, ...], np.dtype[np.float32]]
    bias: np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None
    last: onnx.NodeProto


def _product(view: View, node: onnx.NodeProto) -> _Product | None:
    weight = view.stored.get(node.input[1]) if node.op_type == "MatMul" and not node.domain else None
    if weight is None or len(weight.dims) != 2 or weight.data_type != TensorProto.FLOAT:
        return None
    if len(view.consumers(weight.name)) > 1 or view.is_output(weight.name):
        return None
    values = numpy_helper.to_array(weight)
    add = view.only_consumer(node.output[0], "Add")
    other = None if add is None else next(name for name in add.input if name != node.output[0])
    bias = view.stored.get(other) if other is not None else None
    if add is None or bias is None or list(bias.dims) != [values.shape[1]]:
        return _Product(values, None, node)
    return _Product(values, numpy_helper.to_array(bias), add)


def _merge(graph: onnx.GraphProto, source: str, group: list[_Product]) -> None:
    stem = f"{group[0].last.output[0]}__merged"
    widths = np.array([product.weight.shape[1] for product in group])
    weight = np.concatenate([product.weight for product in group], axis=1)
    graph.initializer.extend(
        [numpy_helper.from_array(weight, f"{stem}_weight"), numpy_helper.from_array(widths, f"{stem}_widths")]
    )
    nodes = [helper.make_node("MatMul", [source, f"{stem}_weight"], [stem], name=stem)]
    whole = stem
    biases = [product.bias for product in group if product.bias is not None]
    if biases:
        graph.initializer.append(numpy_helper.from_array(np.concatenate(biases), f"{stem}_bias"))
        whole = f"{stem}_sum"
        nodes.append(helper.make_node("Add", [stem, f"{stem}_bias"], [whole], name=whole))
    outputs = [product.last.output[0] for product in group]
    nodes.append(helper.make_node("Split", [whole, f"{stem}_widths"], outputs, name=f"{stem}_split", axis=-1))
    for product in group:
        graph.node.remove(product.last)
    graph.node.extend(nodes)
