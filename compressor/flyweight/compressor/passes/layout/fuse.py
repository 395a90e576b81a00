"""Writing a graph in the operators that onnxruntime's kernels do best; it computes what it did."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.layout.equivalence import check_same_answers
from flyweight.compressor.passes.layout.rewriting import fuse
from flyweight.compressor.passes.quantize.preparation import prepare
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class FuseGraph(Pass):
    """Fuses what onnxruntime rewards and does not fuse by itself, and keeps it from what it punishes.

    Attention written in small operators becomes the operator Attention of opset 23 (A. Vaswani et al.,
    "Attention Is All You Need", NeurIPS 2017, equation 1), whose kernel needs no transposed copies. Residual
    sums are written so that they stay apart from the normalisation after them: see layout/residual.py.
    Nothing is approximated; the result is compared with the original on the data before it is used.

    Attributes:
        attention: whether to fuse attention.
        residual: whether to keep residual sums apart.
        fold: whether to fold rows of tables that are the same in every run, and widening that the next
            operator does by itself.
    """

    name: ClassVar[str] = "fuse-graph"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    attention: bool = True
    residual: bool = True
    fold: bool = True

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the model written otherwise, or as it was where there is nothing to gain.

        Raises:
            PassError: the result does not answer as the original does.
        """
        source = model.onnx_path()
        with quiet_tools():
            graph = prepare(source, context.new_path)
            fused, notes = fuse(graph, attention=self.attention, residual=self.residual, fold=self.fold)
            if not notes:
                return PassResult(model, changed=False, notes=("The graph holds nothing to fuse.",))
            path = save_graph(fused, context.new_path("fuse-graph"))
            worst = check_same_answers(source, path, context.calibration)
        told = f"{' '.join(notes)} The answers differ by {worst:.0e} of their range."
        return PassResult(Model(path=path), changed=True, notes=(told,))
