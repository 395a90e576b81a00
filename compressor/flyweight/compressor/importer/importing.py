"""Turns an ONNX graph into a torch module, node by node, and checks it against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx
import torch
from torch import fx

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.importer.builder import Builder
from flyweight.compressor.importer.checking import check_answers
from flyweight.compressor.importer.operation import Operation, Outcome
from flyweight.compressor.importer.operators import known_operator, refuse_unknown
from flyweight.compressor.importer.reading import Source, count_reads, read_source, split_constants
from flyweight.compressor.importer.values import Numbers, Symbol, Value
from flyweight.compressor.model import Array


def import_onnx(path: Path, feeds: Sequence[Mapping[str, Array]]) -> fx.GraphModule:
    """Return a module of torch's own layers that answers as an ONNX graph does.

    Args:
        path: the graph. Its inputs become the arguments of forward(), in its order; its outputs what
            forward() returns, alone or as a tuple.
        feeds: inputs by name to build on and to check with: one at least, of several batch lengths if the
            graph takes several.

    Returns:
        A torch.fx.GraphModule in evaluation mode. Weights are parameters of torch's layers, named after the
        graph's initializers; whatever depends on the length of an axis is computed anew in every call.

    Raises:
        ModelError: the graph cannot be read or run, uses operators the importer does not know, or the module
            does not answer as ONNX Runtime does.
    """
    module = build_module(path, feeds[0])
    check_answers(module, path, feeds)
    return module


def build_module(path: Path, feed: Mapping[str, Array]) -> fx.GraphModule:
    """Return the module as import_onnx does, unchecked.

    Raises:
        ModelError: the graph cannot be read, or uses operators the importer does not know.
    """
    source = read_source(path)
    refuse_unknown(path, source.nodes)
    with quiet(), torch.no_grad():
        return _Walk(path, source).run(feed)


class _Walk:
    """One walk through a graph."""

    def __init__(self, path: Path, source: Source) -> None:
        self._path = path
        self._source = source
        self._builder = Builder()
        self._known: dict[str, Value] = {}
        self._reads = dict(source.reads)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._absorbed: dict[str, str] = {}

    def run(self, feed: Mapping[str, Array]) -> fx.GraphModule:
        """Build the module on one feed."""
        self._store(self._source.constants)
        for name in self._source.inputs:
            self._known[name] = self._builder.input(name, torch.from_numpy(feed[name].copy()))
        self._nodes(self._source.nodes)
        outputs = [self._builder.tensor(self._known[name]) for name in self._source.outputs]
        return self._builder.finish(outputs)

    def sole_consumer(self, node: onnx.NodeProto, kind: str) -> onnx.NodeProto | None:
        """Return the only node that reads a node's first output, if there is one and it is of this type."""
        name = node.output[0]
        readers = self._readers.get(name, [])
        alone = len(readers) == 1 and self._source.reads.get(name) == 1
        return readers[0] if alone and readers[0].op_type == kind else None

    def lookup(self, name: str) -> Value | None:
        """Return the value of a name, if it is known already."""
        return self._known.get(name)

    def absorb(self, node: onnx.NodeProto, consumer: onnx.NodeProto) -> None:
        """Note that what `node` returns is what `consumer` would."""
        self._absorbed[consumer.output[0]] = node.output[0]

    def fixed_lengths(self, name: str) -> Sequence[int | None] | None:
        """Return the lengths that the graph fixes, None for free ones; None for unknown axes."""
        return self._source.lengths.get(name)

    def _store(self, constants: Mapping[str, torch.Tensor]) -> None:
        for name, tensor in constants.items():
            self._known[name] = Symbol(None, tensor, origin=name)

    def _nodes(self, nodes: Sequence[onnx.NodeProto]) -> None:
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        for node in nodes:
            if node.output[0] in self._absorbed:
                self._known[node.output[0]] = self._known[self._absorbed[node.output[0]]]
            elif node.op_type == "If":
                self._branch(node)
            else:
                self._bind(node, self._build(node))
            self._forget(node)

    def _build(self, node: onnx.NodeProto) -> Outcome:
        inputs = [self._known[name] if name else None for name in node.input]
        domain = "" if node.domain == "ai.onnx" else node.domain
        operation = Operation(
            node,
            inputs,
            self._source.opsets.get(domain, 1),
            self._builder,
            self,
        )
        return run_foreign(
            lambda: known_operator(node)(operation),
            lambda reason: ModelError(
                f"The node {_called(node)} of {self._path} cannot be turned into torch ({reason})."
            ),
        )

    def _bind(self, node: onnx.NodeProto, outcome: Outcome) -> None:
        values = [outcome] if isinstance(outcome, Symbol | Numbers) else list(outcome)
        for position, name in enumerate(node.output):
            value = values[position] if position < len(values) else None
            if value is None and self._reads.get(name):
                raise ModelError(
                    f"The node {_called(node)} of {self._path} is used for its output {position}, "
                    "which the importer cannot give."
                )
            if value is not None and name:
                self._known[name] = value

    def _forget(self, node: onnx.NodeProto) -> None:
        """Drop values nobody will read, so that a large model's activations do not all stay in memory."""
        for name in node.input:
            self._reads[name] = self._reads.get(name, 0) - 1
            if self._reads[name] <= 0 and name not in self._source.constants:
                self._known.pop(name, None)

    def _branch(self, node: onnx.NodeProto) -> None:
        """Take the branch of an If whose condition does not depend on the inputs."""
        condition = self._known[node.input[0]]
        if not condition.is_constant:
            raise ModelError(
                f"The node {_called(node)} of {self._path} decides by the input, which the importer cannot "
                "follow; only passes for ONNX graphs fit this model."
            )
        taken = bool(self._builder.tensor(condition).tensor.reshape(-1)[0])
        wanted = "then_branch" if taken else "else_branch"
        graph = next(entry.g for entry in node.attribute if entry.name == wanted)
        nodes, constants = split_constants(graph)
        refuse_unknown(self._path, nodes)
        self._store(constants)
        for name, count in count_reads(nodes, graph).items():
            # The If counted the reads of both branches; a branch may also read what only it makes.
            self._reads[name] = self._reads.get(name, 0) + count
        self._nodes(nodes)
        self._bind(node, [self._known[output.name] for output in graph.output])


def _called(node: onnx.NodeProto) -> str:
    return f"{node.name or node.output[0]!r} ({node.op_type})"
