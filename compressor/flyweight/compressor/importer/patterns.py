"""Recognises layer normalisation that an exporter wrote as nine separate operators."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper
from torch import Tensor


def fuse_patterns(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Tensor], outputs: set[str]
) -> list[onnx.NodeProto]:
    """Return the nodes with each decomposed layer normalisation over the last axis as one node.

    (x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon) * gamma + beta; Ba et al. 2016, equation 4.
    """
    graph = _Graph(nodes, constants, outputs)
    fused: dict[int, onnx.NodeProto] = {}
    gone: set[int] = set()
    for node in nodes:
        found = graph.normalisation(node)
        if found is not None:
            fused[id(found.last)] = found.node()
            gone.update(id(part) for part in found.parts)
    kept = [fused.get(id(node), node) for node in nodes if id(node) in fused or id(node) not in gone]
    return graph.without_unread(kept)


@dataclass(frozen=True, slots=True)
class _Found:
    x: str
    gamma: str
    beta: str
    epsilon: float
    last: onnx.NodeProto
    parts: tuple[onnx.NodeProto, ...]

    def node(self) -> onnx.NodeProto:
        return helper.make_node(
            "LayerNormalization",
            [self.x, self.gamma, self.beta],
            [self.last.output[0]],
            name=self.last.name or self.last.output[0],
            axis=-1,
            epsilon=self.epsilon,
        )


class _Graph:
    def __init__(
        self, nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Tensor], outputs: set[str]
    ) -> None:
        self._constants = constants
        self._outputs = outputs
        self._makers = {output: node for node in nodes for output in node.output}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in nodes:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)

    def normalisation(self, divide: onnx.NodeProto) -> _Found | None:
        """Return the pattern around its Div node."""
        if divide.op_type != "Div":
            return None
        root, subtract = self._maker(divide.input[1], "Sqrt"), self._maker(divide.input[0], "Sub")
        plus = self._maker(root.input[0], "Add") if root is not None else None
        if subtract is None or plus is None:
            return None
        x, mean = subtract.input
        epsilon, variance = self._split(plus)
        if epsilon is None or self._constants[epsilon].numel() != 1 or not self._is_spread(variance, x, mean):
            return None
        return self._with_scale(x, float(self._constants[epsilon]), divide)

    def _is_spread(self, name: str, x: str, mean: str) -> bool:
        """Return whether a name is the mean of the squares of x minus its mean."""
        averages = [self._maker(name, "ReduceMean"), self._maker(mean, "ReduceMean")]
        variance, centre = averages
        if variance is None or centre is None or centre.input[0] != x:
            return False
        return (
            self._last_axis(centre)
            and self._last_axis(variance)
            and self._is_square(variance.input[0], x, mean)
        )

    def _with_scale(self, x: str, epsilon: float, divide: onnx.NodeProto) -> _Found | None:
        """Return the pattern with the product and the sum after the division."""
        scale = self._only_reader(divide.output[0], "Mul")
        shift = self._only_reader(scale.output[0], "Add") if scale is not None else None
        if scale is None or shift is None:
            return None
        gamma, beta = self._split(scale)[0], self._split(shift)[0]
        if gamma is None or beta is None or not self._alike(gamma, beta):
            return None
        return _Found(x, gamma, beta, epsilon, shift, (divide, scale, shift))

    def without_unread(self, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
        """Return the nodes that something reads: a fused pattern's first half is left without a reader."""
        read, kept = set(self._outputs), list[onnx.NodeProto]()
        for node in reversed(nodes):
            if any(output in read for output in node.output):
                kept.append(node)
                read.update(_names_read(node))
        return kept[::-1]

    def _maker(self, name: str, kind: str) -> onnx.NodeProto | None:
        node = self._makers.get(name)
        return node if node is not None and node.op_type == kind else None

    def _only_reader(self, name: str, kind: str) -> onnx.NodeProto | None:
        readers = self._readers.get(name, [])
        alone = len(readers) == 1 and name not in self._outputs and readers[0].op_type == kind
        return readers[0] if alone else None

    def _split(self, node: onnx.NodeProto) -> tuple[str | None, str]:
        """Return the constant and the other input of a node with two inputs."""
        first, second = node.input
        if second in self._constants:
            return second, first
        return (first, second) if first in self._constants else (None, first)

    def _is_square(self, name: str, x: str, mean: str) -> bool:
        """Return whether a name is the square of x minus its mean, which may have been computed twice."""
        power, product = self._maker(name, "Pow"), self._maker(name, "Mul")
        square = power or product
        if square is None:
            return False
        if power is not None:
            exponent = self._constants.get(power.input[1])
            if exponent is None or exponent.numel() != 1 or float(exponent) != 2.0:
                return False
        elif square.input[0] != square.input[1]:
            return False
        subtract = self._maker(square.input[0], "Sub")
        return subtract is not None and list(subtract.input) == [x, mean]

    def _last_axis(self, node: onnx.NodeProto) -> bool:
        attributes = {entry.name: entry for entry in node.attribute}
        if "keepdims" in attributes and attributes["keepdims"].i == 0:
            return False
        if "axes" in attributes:
            return list(attributes["axes"].ints) == [-1]
        axes = self._constants.get(node.input[1]) if len(node.input) > 1 else None
        return axes is not None and axes.reshape(-1).tolist() == [-1]

    def _alike(self, gamma: str, beta: str) -> bool:
        first, second = self._constants[gamma], self._constants[beta]
        return first.ndim == 1 and first.shape == second.shape


def _names_read(node: onnx.NodeProto) -> set[str]:
    read = set(node.input)
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            read.update(output.name for output in attribute.g.output)
            for inner in attribute.g.node:
                read |= _names_read(inner)
    return read
