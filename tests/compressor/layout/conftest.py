"""A transformer's encoder block written node by node, in the ways that exporters write it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

HEADS, SIZE, LENGTH = 2, 4, 5
WIDTH = HEADS * SIZE


@dataclass(frozen=True)
class Writing:
    """How the attention is written.

    `mask` is none, added, chosen (a Where on a condition), causal (a constant of two axes), indexed (picked
    out of one row for each sample, place by place) or later (the same, for a key's place of 1 or more);
    `rows` the mask's third length, 1 or LENGTH; `scaled` says what the factor is applied to: scores, query,
    both, or after computing it from the query's shape; `keys` how they are transposed: once, twice, or in
    three axes; `guard` whether not-a-number among the shares becomes 0; `opset` of the file.
    """

    mask: str = "added"
    rows: int = LENGTH
    scaled: str = "scores"
    keys: str = "once"
    guard: bool = False
    opset: int = 17


class Block:
    """Writes nodes one after the other; every method that adds one returns its output's name."""

    def __init__(self, writing: Writing) -> None:
        self.writing = writing
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.stored: list[onnx.TensorProto] = []
        self.shapes: list[onnx.ValueInfoProto] = []

    def constant(self, value: np.ndarray, name: str = "") -> str:
        name = name or f"constant{len(self.stored)}"
        self.stored.append(numpy_helper.from_array(value, name))
        return name

    def node(self, operator: str, *inputs: str, **attributes: object) -> str:
        name = f"{operator.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def linear(self, source: str, inputs: int = WIDTH, outputs: int = WIDTH) -> str:
        weight = self.random.standard_normal((inputs, outputs)) / np.sqrt(inputs)
        product = self.node("MatMul", source, self.constant(weight.astype(np.float32)))
        return self.node("Add", product, self.constant(np.full(outputs, 0.1, np.float32)))

    def apart(self, source: str, *perms: list[int]) -> str:
        name = self.node("Reshape", source, self.constant(np.array([0, 0, HEADS, SIZE])))
        for perm in perms:
            name = self.node("Transpose", name, perm=perm)
        return name

    def factor(self, name: str, value: float) -> str:
        return self.node("Mul", name, self.constant(np.float32(value).reshape(())))

    def computed_root(self, query: str) -> str:
        """Return the fourth root of the inverse size of a head, as torch's script exporter writes it."""
        last, end = self.constant(np.array([-1])), self.constant(np.array([2**62]))
        size = self.node("Slice", self.node("Shape", query), last, end)
        one = self.constant(np.ones(1, np.float32))
        root = self.node("Sqrt", self.node("Cast", size, to=TensorProto.FLOAT))
        return self.node("Sqrt", self.node("Div", one, root))

    def known(self, name: str, *lengths: int | str) -> str:
        """Note a tensor's shape down, as torch's exporter does."""
        self.shapes.append(helper.make_tensor_value_info(name, TensorProto.INT64, lengths))
        return name

    def range(self, name: str, axis: int, length: int | str) -> str:
        start, step = self.constant(np.array(0)), self.constant(np.array(1))
        limit = self.node("Squeeze", self.node("Shape", name, start=axis, end=axis + 1))
        return self.known(self.node("Range", start, limit, step), length)

    def unsqueezed(self, name: str, *axes: int) -> str:
        return self.node("Unsqueeze", name, self.constant(np.array(axes)))

    def indexed(self, name: str, least: int, hidden: float = -1e9) -> str:
        """Return what is added to the scores, written as torch's vmap traces a function of places."""
        condition = self.node("Cast", name, to=TensorProto.BOOL)
        batch = self.known(self.unsqueezed(self.range(name, 0, "n"), 1, 2, 3), "n", 1, 1, 1)
        places = self.unsqueezed(self.range(name, 1, LENGTH), 0, 1)
        keys = self.known(self.unsqueezed(places, 1), 1, 1, 1, LENGTH)
        grid = self.node("Shape", self.known(self.node("Max", batch, keys), "n", 1, 1, LENGTH))
        parts = []
        for part in (batch, keys):
            wide = self.known(self.node("Expand", part, grid), "n", 1, 1, LENGTH)
            parts.append(self.known(self.unsqueezed(wide, -1), "n", 1, 1, LENGTH, 1))
        picked = self.node("GatherND", condition, self.node("Concat", *parts, axis=-1))
        compared = self.unsqueezed(places, 3) if least == 0 else keys
        always = self.node("GreaterOrEqual", compared, self.constant(np.array(least)))
        always = self.node("And", self.constant(np.array(True)), always)
        seen = self.node("And", always, picked)
        zero, fill = (self.constant(np.float32(value).reshape(())) for value in (0, hidden))
        return self.node("Where", seen, zero, fill)

    def attention(self, source: str) -> str:
        once = self.writing.keys == "once"
        query = self.apart(self.linear(source), [0, 2, 1, 3])
        key = self.apart(self.linear(source), [0, 2, 3, 1] if once else [0, 2, 1, 3])
        if self.writing.keys == "twice":
            key = self.node("Transpose", key, perm=[0, 1, 3, 2])
        if self.writing.keys == "in three":
            key = self.node("Reshape", key, self.constant(np.array([-1, LENGTH, SIZE])))
            key = self.node("Transpose", key, perm=[0, 2, 1])
            key = self.node("Reshape", key, self.constant(np.array([-1, HEADS, SIZE, LENGTH])))
        value = self.apart(self.linear(source), [0, 2, 1, 3])
        scale = SIZE**-0.5
        if self.writing.scaled == "query":
            query = self.factor(query, scale)
        if self.writing.scaled == "both":
            query, key = self.factor(query, scale**0.5), self.factor(key, scale**0.5)
        if self.writing.scaled == "computed":
            root = self.computed_root(query)
            query, key = self.node("Mul", query, root), self.node("Mul", key, root)
        scores = self.node("MatMul", query, key)
        if self.writing.scaled == "scores":
            scores = self.node("Div", scores, self.constant(np.float32(1 / scale).reshape(())))
        if self.writing.mask == "added":
            scores = self.node("Add", scores, "mask")
        if self.writing.mask in {"indexed", "later"}:
            scores = self.node("Add", scores, self.indexed("mask", int(self.writing.mask == "later")))
        if self.writing.mask == "chosen":
            scores = self.node("Where", "mask", self.constant(np.float32(-1e9).reshape(())), scores)
        if self.writing.mask == "causal":
            hidden = np.triu(np.full((LENGTH, LENGTH), -np.inf, np.float32), 1)
            scores = self.node("Add", scores, self.constant(hidden))
        shares = self.node("Softmax", scores, axis=-1)
        if self.writing.guard:
            zero = self.constant(np.float32(0).reshape(()))
            shares = self.node("Where", self.node("IsNaN", shares), zero, shares)
        together = self.node("MatMul", shares, value)
        together = self.node("Transpose", together, perm=[0, 2, 1, 3])
        return self.node("Reshape", together, self.constant(np.array([0, 0, WIDTH])))

    def normalised(self, name: str) -> str:
        ones = self.constant(np.ones(WIDTH, np.float32))
        return self.node(
            "LayerNormalization", name, ones, self.constant(np.zeros(WIDTH, np.float32)), axis=-1
        )

    def model(self) -> onnx.ModelProto:
        source = self.normalised("x")
        attended = self.normalised(self.node("Add", self.linear(self.attention(source)), source))
        output = self.normalised(self.node("Add", self.linear(attended), attended))
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", LENGTH, WIDTH])]
        if self.writing.mask in {"added", "chosen"}:
            element = TensorProto.FLOAT if self.writing.mask == "added" else TensorProto.BOOL
            inputs.append(helper.make_tensor_value_info("mask", element, ["n", 1, self.writing.rows, LENGTH]))
        if self.writing.mask in {"indexed", "later"}:
            inputs.append(helper.make_tensor_value_info("mask", TensorProto.INT64, ["n", LENGTH]))
        self.node("Identity", output)
        self.nodes[-1].output[0] = "y"
        graph = helper.make_graph(
            self.nodes,
            "block",
            inputs,
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", LENGTH, WIDTH])],
            self.stored,
            value_info=self.shapes,
        )
        return helper.make_model(
            graph, ir_version=8, opset_imports=[helper.make_opsetid("", self.writing.opset)]
        )


@pytest.fixture
def block(tmp_path: Path) -> Callable[..., Path]:
    """Write a block into a file, as `Writing` says, and return the path."""

    def write(**writing: object) -> Path:
        path = tmp_path / "block.onnx"
        onnx.save_model(Block(Writing(**writing)).model(), path)  # type: ignore[arg-type]  # the fields' own types
        return path

    return write


def feed(writing: str = "added", rows: int = LENGTH, samples: int = 3) -> dict[str, np.ndarray]:
    """Return inputs for a block: every query may see the first key, and the others by chance."""
    random = np.random.default_rng(1)
    found = {"x": random.standard_normal((samples, LENGTH, WIDTH)).astype(np.float32)}
    hidden = random.random((samples, 1, rows, LENGTH)) < 0.4
    hidden[..., 0] = False
    if writing == "added":
        found["mask"] = np.where(hidden, np.float32(-1e9), np.float32(0))
    if writing == "chosen":
        found["mask"] = hidden
    if writing in {"indexed", "later"}:
        found["mask"] = np.where(hidden[:, 0, 0], 0, 1)
    return found


@pytest.fixture
def inputs() -> Callable[..., dict[str, np.ndarray]]:
    """Make inputs for a block."""
    return feed
