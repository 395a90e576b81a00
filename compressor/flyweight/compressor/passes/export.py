"""From a torch module to an ONNX graph that ONNX Runtime can optimise and quantize."""

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
import onnx
import torch
from torch import nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.model import Array, Model
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.pooling import pool_globally
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.torch_model import outputs_of
from flyweight.compressor.training import threads

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

OPSET: Final = 20
"""What the exporter writes without converting, and every ONNX Runtime since 1.17 reads."""

TOLERANCE: Final = 1e-4
"""Largest difference between the graph and the module, relative to the largest output (at least 1)."""

CHECKED_ROWS: Final = 3
"""Another batch length than was traced, so that a batch axis frozen by tracing is noticed."""


@dataclass(frozen=True, slots=True)
class Export(Pass):
    """Exports a module with a dynamic batch axis, and checks the graph against the module in ONNX Runtime.

    The exporter folds batch normalisation into the convolution before it. Means over all spatial axes become
    GlobalAveragePool: ONNX Runtime quantizes that and not ReduceMean, which would leave a float island.
    """

    name: ClassVar[str] = "export"
    needs: ClassVar[Form] = Form.TORCH
    gives: ClassVar[Form] = Form.ONNX

    opset: int = OPSET

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the exported model.

        Raises:
            PassError: the module cannot be exported, or the graph does not answer as the module does.
            ModelError: ONNX Runtime cannot load or run the graph.
        """
        path = context.new_path("export")
        with threads(context.threads):
            run_foreign(lambda: _export_or_say_why(model, path, self.opset), _refused)
            graph = onnx.load(path)
            _check_batch_axis(graph)
            pooled = pool_globally(graph)
            onnx.checker.check_model(graph)
            onnx.save(graph, path)
            difference = _check(model, path, _rows(model, context))
        notes = [f"Exported with opset {self.opset}; differs from the module by at most {difference:.1e}."]
        if pooled:
            notes.append(f"{pooled} mean(s) over the spatial axes became GlobalAveragePool.")
        unfolded = unfolded_normalisations(graph)
        if unfolded:
            notes.append(f"{len(unfolded)} batch normalisations could not be folded ({unfolded[0]}...).")
        return PassResult(Model(path=path), changed=True, notes=tuple(notes))


def unfolded_normalisations(graph: onnx.ModelProto) -> list[str]:
    """Return the names of BatchNormalization nodes that read a convolution or matrix product directly."""
    makers = {output: node.op_type for node in graph.graph.node for output in node.output}
    return [
        node.name or node.output[0]
        for node in graph.graph.node
        if node.op_type == "BatchNormalization"
        and makers.get(node.input[0]) in {"Conv", "ConvTranspose", "Gemm"}
    ]


def _refused(reason: str) -> PassError:
    return PassError(
        f"torch could not export the module to ONNX ({reason}); make its forward() traceable by "
        "torch.export, or export it yourself and give flyweight the ONNX file."
    )


def _export_or_say_why(model: Model, path: Path, opset: int) -> None:
    """Export, and raise what stopped the exporter instead of its advice; the traces it prints are dropped."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            _export(model, path, opset)
    except torch.onnx.OnnxExporterError as error:
        raise (error.__cause__ or error) from error


def _export(model: Model, path: Path, opset: int) -> None:
    # Two rows: a traced batch of one is taken for a constant.
    example = tuple(torch.from_numpy(np.repeat(array, 2, axis=0)) for array in model.example.values())
    batch = torch.export.Dim("batch")
    with quiet(), torch.no_grad():
        torch.onnx.export(
            model.torch_module(),
            example,
            str(path),
            input_names=list(model.example),
            output_names=list(model.output_names),
            opset_version=opset,
            dynamo=True,
            # Weights inside the file: onnxruntime's quantizer does not read them from beside it.
            external_data=False,
            dynamic_shapes=tuple({0: batch} for _ in example),
            verbose=False,
        )


def _check_batch_axis(graph: onnx.ModelProto) -> None:
    for value in graph.graph.input:
        length = value.type.tensor_type.shape.dim[0].dim_value
        if length:
            raise PassError(
                f"The exported input {value.name!r} only takes batches of {length}: forward() depends on the "
                "length of the batch; make it work alike for every length."
            )


def _rows(model: Model, context: "Context") -> dict[str, Array]:
    known = context.calibration.inputs
    source = known if all(name in known for name in model.example) else model.example
    return {name: np.resize(source[name], (CHECKED_ROWS, *source[name].shape[1:])) for name in model.example}


def _check(model: Model, path: Path, rows: dict[str, Array]) -> float:
    """Return the largest relative difference between graph and module; raise where it is too large."""
    found = Session(path, SessionSettings(threads=torch.get_num_threads())).run(rows)
    worst = 0.0
    for name, expected in zip(model.output_names, _answers(model.torch_module(), rows), strict=True):
        array = found[name]
        if array.shape != expected.shape:
            raise PassError(
                f"The exported output {name!r} has shape {array.shape} instead of {expected.shape}."
            )
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        difference = float(np.abs(array.astype(np.float64) - expected).max(initial=0.0)) / scale
        if not difference <= TOLERANCE:
            raise PassError(
                f"The exported output {name!r} differs from the module's by {difference:.1e} of its range, "
                f"more than {TOLERANCE:.0e}; the export cannot be trusted."
            )
        worst = max(worst, difference)
    return worst


def _answers(module: nn.Module, rows: dict[str, Array]) -> list[Array]:
    with torch.no_grad():
        outputs = outputs_of(module(*(torch.from_numpy(array) for array in rows.values())))
    return [output.numpy() for output in outputs]
