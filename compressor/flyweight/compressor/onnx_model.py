"""ONNX files: reading them with care, writing them whole, and counting what they hold."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar, cast

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from flyweight.compressor.errors import ModelError
from flyweight.compressor.messages import first_line
from flyweight.protos.variant.names import is_inside_folder

Value = TypeVar("Value", int, float, bytes, list[int], list[float])

EXTERNAL_DATA_FILE: Final = "model.onnx.data"

# protobuf refuses messages of 2 GiB; tensors beyond this go into a file of their own.
_LARGEST_INLINE_BYTES: Final = 1_900_000_000

_COUNTED: Final = frozenset(
    {
        onnx.TensorProto.FLOAT,
        onnx.TensorProto.FLOAT16,
        onnx.TensorProto.BFLOAT16,
        onnx.TensorProto.DOUBLE,
        onnx.TensorProto.INT8,
        onnx.TensorProto.UINT8,
        onnx.TensorProto.INT4,
        onnx.TensorProto.UINT4,
        onnx.TensorProto.INT32,
    }
)

# Of types whose elements all take the same room.
_BITS: Final = {
    getattr(onnx.TensorProto, name): bits
    for bits, names in (
        (4, "INT4 UINT4"),
        (8, "BOOL INT8 UINT8 FLOAT8E4M3FN FLOAT8E4M3FNUZ FLOAT8E5M2 FLOAT8E5M2FNUZ"),
        (16, "INT16 UINT16 FLOAT16 BFLOAT16"),
        (32, "INT32 UINT32 FLOAT"),
        (64, "INT64 UINT64 DOUBLE COMPLEX64"),
        (128, "COMPLEX128"),
    )
    for name in names.split()
}

# The IR version since which an initializer need not be an input as well.
_INITIALIZERS_NEED_NO_INPUT: Final = 4
# How onnxruntime's quantizers, and ours, end the names of scales and zero points.
_SCALES: Final = ("_scale", "_zero_point")


def load_graph(path: Path, *, weights: bool = True) -> onnx.ModelProto:
    """Read an ONNX file, with its external data unless `weights` is false.

    Raises:
        ModelError: there is no such file, it is not ONNX, or its external data are missing or lie elsewhere.
    """
    if not path.exists():
        raise ModelError(f"The model file {path} does not exist; check the path.")
    if path.is_dir():
        raise ModelError(f"{path} is a folder; give the .onnx file in it.")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"{path} is not an ONNX file ({first_line(error)}).") from error
    if not model.ir_version or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX file: it has no graph with outputs.")
    external_files(path, model)
    if weights:
        try:
            onnx.load_external_data_for_model(model, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise ModelError(f"The external data of {path} cannot be read ({first_line(error)}).") from error
    return model


def external_files(path: Path, model: onnx.ModelProto) -> tuple[Path, ...]:
    """Return the files beside `path` that hold the model's large tensors, each once.

    Raises:
        ModelError: one is missing, lies outside the model's folder, or is shorter than the model says.
    """
    files: dict[str, Path] = {}
    for tensor in all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        if location not in files:
            files[location] = _external_file(path, location)
        _check_extent(path, tensor, entries, files[location])
    return tuple(files[location] for location in sorted(files))


def _external_file(path: Path, location: str) -> Path:
    file = path.parent / location
    inside = is_inside_folder(location) and file.resolve().is_relative_to(path.parent.resolve())
    if not inside:
        raise ModelError(f"{path} keeps data in {location!r}, outside its folder; save it again beside it.")
    if not file.is_file():
        raise ModelError(f"{path} keeps data in {location!r}, which is not there; copy it beside the model.")
    return file


def _check_extent(path: Path, tensor: onnx.TensorProto, entries: dict[str, str], file: Path) -> None:
    """Check that the bytes a tensor asks for are in its file, and as many as its shape needs.

    A reader that trusts these numbers allocates whatever they say.
    """
    try:
        offset, length = int(entries.get("offset") or 0), int(entries.get("length") or -1)
    except ValueError:
        offset, length = -1, -1
    needed = _stored_bytes(tensor)
    length = needed if length == -1 and needed is not None else length
    fits = offset >= 0 and length >= 0 and offset + length <= file.stat().st_size
    if not fits or (needed is not None and length != needed):
        raise ModelError(
            f"{path} says that tensor {tensor.name!r} has {length} bytes at {offset} of {file.name!r}, which "
            f"has {file.stat().st_size}, and its shape needs {needed}; save the model again."
        )


def _stored_bytes(tensor: onnx.TensorProto) -> int | None:
    """Return how many bytes a tensor's shape and type take; None for types that have no fixed size."""
    bits = _BITS.get(tensor.data_type)
    return None if bits is None else -(-math.prod(tensor.dims) * bits // 8)


def save_graph(model: onnx.ModelProto, path: Path) -> Path:
    """Write a model, its large tensors beside it when it would exceed protobuf's limit, and return `path`."""
    if model.ByteSize() < _LARGEST_INLINE_BYTES:
        external_data_helper.convert_model_from_external_data(model)
        onnx.save_model(model, path)
    else:
        onnx.save_model(
            model, path, save_as_external_data=True, location=EXTERNAL_DATA_FILE, size_threshold=1024
        )
    return path


def file_bytes(path: Path) -> int:
    """Return the bytes of a model's file and its external data."""
    files = external_files(path, load_graph(path, weights=False))
    return path.stat().st_size + sum(file.stat().st_size for file in files)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield a graph and, recursively, the bodies of its If, Loop and Scan nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from all_graphs(attribute.g)
            for body in attribute.graphs:
                yield from all_graphs(body)


def all_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: initializers and tensors in attributes, in subgraphs and functions too."""
    training = [part for info in model.training_info for part in (info.initialization, info.algorithm)]
    for graph in (model.graph, *training):
        yield from _tensors_of_graph(graph)
    for function in model.functions:
        yield from _tensors_within(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _tensors_within(graph.node)


def _tensors_within(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    """Yield the tensors in attributes, whatever type the attribute says it has, and those in bodies."""
    for node in nodes:
        yield from _tensors_of_nodes([node])
        for attribute in node.attribute:
            bodies = [attribute.g] if attribute.HasField("g") else []
            for body in (*bodies, *attribute.graphs):
                yield from _tensors_of_graph(body)


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for tensor in (*sparse, *attribute.sparse_tensors):
                yield from (tensor.values, tensor.indices)


def attribute(node: onnx.NodeProto, name: str, default: Value) -> Value:
    """Return the value of a node's attribute, or `default`, of the attribute's type, where it has none.

    Numbers are int or float, lists are lists, text is bytes.
    """
    for found in node.attribute:
        if found.name == name:
            return cast("Value", onnx.helper.get_attribute_value(found))
    return default


def count_parameters(model: onnx.ModelProto) -> int:
    """Return how many weights a model holds, wherever they are stored.

    Shapes and indices (64-bit integers) and the scales and zero points of quantized tensors do not count.
    """
    total = 0
    for graph in all_graphs(model.graph):
        tensors = [tensor for tensor in graph.initializer if not tensor.name.endswith(_SCALES)]
        tensors += _tensors_of_nodes(graph.node)
        total += sum(
            int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in _COUNTED and tensor.dims
        )
    return total


def onnx_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=1)


def lift_constants(model: onnx.ModelProto) -> int:
    """Turn Constant nodes of the main graph into initializers, in place, and return how many there were.

    onnxruntime's quantizers look for weights among the initializers only.
    """
    graph, kept, lifted = model.graph, [], 0
    for node in graph.node:
        value = {attribute.name: attribute for attribute in node.attribute}.get("value")
        if node.op_type == "Constant" and value is not None and node.output[0] not in _output_names(graph):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(value.t)
            tensor.name = node.output[0]
            graph.initializer.append(tensor)
            lifted += 1
        else:
            kept.append(node)
    if lifted:
        del graph.node[:]
        graph.node.extend(kept)
    return lifted


def drop_initializer_inputs(model: onnx.ModelProto) -> bool:
    """Remove initializers from the graph's inputs, in place, and return whether there were any.

    Files of IR version 3 list them there, as defaults that a caller may override; nobody who serves a model
    does, and tools that fold or replace an initializer would leave an input behind that must be fed.
    """
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in stored]
    if len(inputs) == len(model.graph.input):
        return False
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, _INITIALIZERS_NEED_NO_INPUT)
    return True


def _output_names(graph: onnx.GraphProto) -> set[str]:
    return {output.name for output in graph.output}
