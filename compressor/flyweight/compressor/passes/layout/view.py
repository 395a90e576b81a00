"""Looking around in a graph: who computes a tensor, who reads it, what is constant, how many axes it has."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import onnx

from flyweight.compressor.onnx_model import all_graphs

Length = int | str | None


class View:
    """An index of the main graph, valid until the graph changes; what subgraphs read counts as read."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self._producers = {name: node for node in graph.node for name in node.output if name}
        self._consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in {*node.input, *_captured(node)} - {""}:
                self._consumers[name].append(node)
        self._outputs = {value.name for value in graph.output}
        self._values = {
            value.name: value.type.tensor_type
            for value in (*graph.input, *graph.output, *graph.value_info)
            if value.type.HasField("tensor_type")
        }

    def producer(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the node that computes a tensor, if it is one of these standard operators."""
        node = self._producers.get(name)
        return node if node is not None and node.op_type in operators and _is_standard(node) else None

    def consumers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a tensor, in the graph's order."""
        return self._consumers.get(name, [])

    def only_consumer(self, name: str, *operators: str) -> onnx.NodeProto | None:
        """Return the one reader of a tensor, if it is one of these and the tensor is no output."""
        readers = self.consumers(name)
        if len(readers) != 1 or name in self._outputs:
            return None
        return readers[0] if readers[0].op_type in operators and _is_standard(readers[0]) else None

    def is_output(self, name: str) -> bool:
        """Return whether callers see the tensor."""
        return name in self._outputs

    def shape(self, name: str) -> tuple[Length, ...] | None:
        """Return a tensor's lengths, each a number, a symbol or None; None when the rank is unknown."""
        if name in self.stored:
            return tuple(self.stored[name].dims)
        kind = self._values.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        return tuple(_length(dimension) for dimension in kind.shape.dim)

    def is_float(self, name: str) -> bool:
        """Return whether a tensor is known to be fp32."""
        if name in self.stored:
            return self.stored[name].data_type == onnx.TensorProto.FLOAT
        kind = self._values.get(name)
        return kind is not None and kind.elem_type == onnx.TensorProto.FLOAT


def remove_unread(model: onnx.ModelProto) -> None:
    """Remove, in place, nodes of the main graph that nothing reads any more, and initializers likewise.

    Nodes must be sorted.
    """
    graph = model.graph
    wanted = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input, _captured(node))
            kept.append(node)
    if len(kept) < len(graph.node):
        kept.reverse()
        del graph.node[:]
        graph.node.extend(kept)
    stored = [tensor for tensor in graph.initializer if tensor.name in wanted]
    if len(stored) < len(graph.initializer):
        del graph.initializer[:]
        graph.initializer.extend(stored)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Put every node after those it reads from, in place, keeping the order otherwise.

    Kahn's algorithm ("Topological sorting of large networks", CACM 5(11), 1962), with the earliest ready node
    first; the graph must have no cycle.
    """
    made = {name for node in graph.node for name in node.output if name}
    known = {"", *(tensor.name for tensor in graph.initializer), *(value.name for value in graph.input)}
    waiting, ordered = list(graph.node), list[onnx.NodeProto]()
    while waiting:
        later = []
        for node in waiting:
            # What no node makes is known, or comes from an outer graph.
            if all(name in known or name not in made for name in (*node.input, *_captured(node))):
                ordered.append(node)
                known.update(node.output)
            else:
                later.append(node)
        if len(later) == len(waiting):
            raise ValueError("The graph has a cycle.")
        waiting = later
    del graph.node[:]
    graph.node.extend(ordered)


def _captured(node: onnx.NodeProto) -> Iterator[str]:
    """Yield every name that the bodies of a node read: their own tensors too, which does no harm here."""
    for item in node.attribute:
        for body in _bodies(item):
            for graph in all_graphs(body):
                yield from (name for inner in graph.node for name in inner.input)
                yield from (value.name for value in graph.output)


def _bodies(item: onnx.AttributeProto) -> Iterable[onnx.GraphProto]:
    return [item.g] if item.type == onnx.AttributeProto.GRAPH else item.graphs


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in {"", "ai.onnx"}


def _length(dimension: onnx.TensorShapeProto.Dimension) -> Length:
    if dimension.HasField("dim_value"):
        return int(dimension.dim_value)
    return dimension.dim_param or None
