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

from flyweight.compressor.errors import ModelError, PassError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.importer.surface import Lengths, Surface, surface_of
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
    """Exports a module with a free batch axis, and checks the graph against the module in ONNX Runtime.

    The exporter folds batch normalisation into the convolution before it. Means over all spatial axes become
    GlobalAveragePool: ONNX Runtime quantizes that and not ReduceMean, which would leave a float island.

    Attributes:
        opset: of the exported graph; later ones need a later runtime.
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
            surface = _surface(model, context)
            run_foreign(lambda: _export_or_say_why(model, path, surface, self.opset), _refused)
            graph = onnx.load(path)
            _check_free_axes(graph, surface)
            pooled = pool_globally(graph)
            onnx.checker.check_model(graph)
            onnx.save(graph, path)
            difference = _check(model, path, _rows(model, surface, context))
            _fix_lengths(graph, surface)
            onnx.save(graph, path)
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


def _surface(model: Model, context: "Context") -> Surface:
    """Return which axes of the inputs are free: as in the graph it was imported from, or the batch axis."""
    known = surface_of(model.torch_module()) or surface_of(context.baseline)
    if known is not None and known.module.keys() == model.example.keys():
        return known
    batched = {name: (None, *array.shape[1:]) for name, array in model.example.items()}
    return Surface(batched, batched)


def _export_or_say_why(model: Model, path: Path, surface: Surface, opset: int) -> None:
    """Export, and raise what stopped the exporter instead of its advice; the traces it prints are dropped."""
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            _export(model, path, surface, opset)
    except torch.onnx.OnnxExporterError as error:
        raise (error.__cause__ or error) from error


def _export(model: Model, path: Path, surface: Surface, opset: int) -> None:
    example = tuple(
        torch.from_numpy(_widened(array, surface.module[name])) for name, array in model.example.items()
    )
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
            dynamic_shapes=_free_axes(surface, model),
            verbose=False,
        )


def _widened(array: Array, lengths: Lengths) -> Array:
    """Return an example with two elements along free axes: a traced length of one is taken for a constant."""
    for axis, length in enumerate(lengths):
        if length is None and array.shape[axis] == 1:
            array = np.repeat(array, 2, axis=axis)
    return array


def _free_axes(surface: Surface, model: Model) -> tuple[dict[int, object], ...]:
    """Return how torch.export is told which axes of each input are free.

    One batch axis is the same for all inputs. With other free axes, tracing finds out which are equal.
    """
    shapes = [surface.module[name] for name in model.example]
    plain = all(shape and shape[0] is None and None not in shape[1:] for shape in shapes)
    free: object = torch.export.Dim("batch") if plain else torch.export.Dim.AUTO
    return tuple({axis: free for axis, length in enumerate(shape) if length is None} for shape in shapes)


def _check_free_axes(graph: onnx.ModelProto, surface: Surface) -> None:
    for value in graph.graph.input:
        for axis, length in enumerate(surface.module[value.name]):
            fixed = value.type.tensor_type.shape.dim[axis].dim_value
            if length is None and fixed:
                what = f"batches of {fixed}" if axis == 0 else f"a length of {fixed} along axis {axis}"
                where = "the batch" if axis == 0 else "that axis"
                raise PassError(
                    f"The exported input {value.name!r} only takes {what}: forward() depends on the "
                    f"length of {where}; make it work alike for every length."
                )


def _fix_lengths(graph: onnx.ModelProto, surface: Surface) -> None:
    """Fix what the graph that was imported fixed, so that callers see no difference."""
    for value in graph.graph.input:
        for axis, length in enumerate(surface.graph[value.name]):
            if length is not None:
                value.type.tensor_type.shape.dim[axis].dim_value = length


def _rows(model: Model, surface: Surface, context: "Context") -> dict[str, Array]:
    """Return inputs to check the graph with: other rows than were traced, where the module takes any."""
    known = context.calibration.inputs
    if any(not lengths or lengths[0] is not None for lengths in surface.module.values()) or any(
        name in known and known[name].ndim != array.ndim for name, array in model.example.items()
    ):
        return dict(model.example)
    source = known if all(name in known for name in model.example) else model.example
    rows = {name: np.resize(source[name], (CHECKED_ROWS, *source[name].shape[1:])) for name in model.example}
    shorter = {name: _shortened(array, surface.module[name]) for name, array in rows.items()}
    return shorter if _runs(model, shorter) else rows


def _shortened(array: Array, lengths: Lengths) -> Array:
    """Return rows one element shorter along free axes, so that a loop that tracing unrolled is noticed."""
    for axis, length in enumerate(lengths[1:], start=1):
        if length is None and array.shape[axis] > 1:
            array = array.take(range(array.shape[axis] - 1), axis)
    return array


def _runs(model: Model, rows: dict[str, Array]) -> bool:
    """Return whether the module takes inputs of these lengths; some only take multiples of a stride."""
    try:
        run_foreign(lambda: _answers(model.torch_module(), rows), _refused)
    except PassError:
        return False
    return True


def _check(model: Model, path: Path, rows: dict[str, Array]) -> float:
    """Return the largest relative difference between graph and module; raise where it is too large."""
    session = Session(path, SessionSettings(threads=torch.get_num_threads()))
    try:
        found = session.run(rows)
    except ModelError as error:
        raise PassError(
            "The exported graph does not take other lengths than it was traced with, and the module does: "
            f"forward() depends on them, in a loop over an axis for example. {error}"
        ) from error
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
