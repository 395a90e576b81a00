"""Attention heads in a traced graph: linear layers, reshapes with the number of heads in them, a softmax.

That is how transformers come out of an ONNX file, or of tracing anyone's code. An output projection is found
by what it reads: walking back from it to the next linear layers, a softmax is passed. The reshape after those
layers splits their features into (heads, size of a head).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, fx, nn

from flyweight.compressor.passes.prune.attention import rows_of_heads

_SOFTMAX: Final = frozenset({"softmax", "_softmax", "scaled_dot_product_attention"})
_SHAPED: Final = frozenset({"reshape", "view", "unflatten", "expand", "broadcast_to", "split", "_reshape"})
"""Calls that take lengths of axes."""


@dataclass(frozen=True, slots=True)
class GraphAttention:
    """One attention of a traced module.

    Attributes:
        name: of the output projection.
        heads: how many it has.
        size: features of a head.
        sources: the linear layers of queries, keys and values; one for all three may hold them one after the
            other.
        region: the nodes between those and the output projection, by name.
    """

    name: str
    heads: int
    size: int
    sources: tuple[str, ...]
    region: tuple[str, ...]

    @property
    def output(self) -> str:
        """The linear layer that reads the heads' features side by side."""
        return self.name

    def slim(self, module: nn.Module, kept: list[int]) -> None:
        """Keep only the heads at `kept`, in place; whether that worked must be tried."""
        assert isinstance(module, fx.GraphModule), "found in one"
        inner, rows = self.heads * self.size, rows_of_heads(kept, self.size)
        for name in self.sources:
            layer = module.get_submodule(name)
            assert isinstance(layer, nn.Linear), "found as one"
            parts = layer.out_features // inner
            _keep_outputs(layer, [part * inner + row for part in range(parts) for row in rows])
        output = module.get_submodule(self.name)
        assert isinstance(output, nn.Linear), "found as one"
        output.weight = nn.Parameter(output.weight.detach()[:, rows].clone())
        output.in_features = len(rows)
        lengths = {inner: len(rows), 3 * inner: 3 * len(rows)}
        for node in module.graph.nodes:
            if node.name in self.region and called(node) in _SHAPED:
                node.args = _relabelled(node.args, self, len(kept), lengths)
                node.kwargs = _relabelled(node.kwargs, self, len(kept), lengths)
        module.recompile()


def graph_attentions(module: fx.GraphModule, example: Sequence[Tensor]) -> list[GraphAttention]:
    """Return the attentions of a traced module whose heads could be cut."""
    shapes = shapes_of(module, example)
    layers = {
        node: layer
        for node in module.graph.nodes
        if node.op == "call_module" and isinstance(layer := module.get_submodule(str(node.target)), nn.Linear)
    }
    calls = [str(node.target) for node in layers]
    found = []
    for node, layer in layers.items():
        sources, region = _behind(module, node)
        linear = [source for source in sources if source in layers]
        names = [str(source.target) for source in linear]
        alone = all(calls.count(name) == 1 for name in [*names, str(node.target)])
        if not alone or not any(called(inside, module) in _SOFTMAX for inside in region):
            continue
        inner = layer.in_features
        widths = [layers[source].out_features for source in linear]
        # Three projections of the inner width, or one that holds all three.
        if widths not in ([inner] * 3, [3 * inner]):
            continue
        split = _heads(region, shapes, inner)
        if split is not None and split[0] > 1:
            inside = tuple(member.name for member in region)
            found.append(GraphAttention(str(node.target), *split, tuple(names), inside))
    return found


def traced(module: nn.Module) -> fx.GraphModule:
    """Return a module as a graph; may raise whatever tracing raises."""
    return module if isinstance(module, fx.GraphModule) else fx.symbolic_trace(module)


def _behind(module: fx.GraphModule, node: fx.Node) -> tuple[list[fx.Node], list[fx.Node]]:
    """Return the nodes with parameters that a node's value comes from, and all nodes on the way."""
    waiting, region, ends = list(node.all_input_nodes), dict[fx.Node, None](), dict[fx.Node, None]()
    while waiting:
        current = waiting.pop()
        # Lengths of axes are asked of tensors that are none of the attention's.
        if (
            current in region
            or current in ends
            or current.op in {"placeholder", "get_attr"}
            or _is_length(current)
        ):
            continue
        layer = module.get_submodule(str(current.target)) if current.op == "call_module" else None
        if layer is not None and any(True for _ in layer.parameters()):
            ends[current] = None
        else:
            region[current] = None
            waiting.extend(current.all_input_nodes)
    # In the order of the graph, so that queries come before keys and the choice is the same every time.
    order = {candidate: place for place, candidate in enumerate(module.graph.nodes)}
    return sorted(ends, key=order.__getitem__), sorted(region, key=order.__getitem__)


def _is_length(node: fx.Node) -> bool:
    return called(node) in {"size", "dim"} or (called(node) == "getattr" and node.args[1] == "shape")


def _heads(
    region: Sequence[fx.Node], shapes: Mapping[fx.Node, tuple[int, ...]], inner: int
) -> tuple[int, int] | None:
    """Return the number of heads and the size of one, read from how a reshape splits the features."""
    for node in region:
        before = [shapes[source] for source in node.all_input_nodes if source in shapes]
        after = shapes.get(node, ())
        if called(node) not in _SHAPED or not before or len(after) < 3 or len(after) <= len(before[0]):
            continue
        heads, size = after[-2:]
        if heads * size == inner and before[0][-1] in {inner, 3 * inner}:
            return heads, size
    return None


def called(node: fx.Node, module: fx.GraphModule | None = None) -> str:
    """Return the bare name of what a node calls."""
    if node.op == "call_method":
        return str(node.target)
    if node.op == "call_function":
        return str(getattr(node.target, "__name__", ""))
    if node.op == "call_module" and module is not None:
        return type(module.get_submodule(str(node.target))).__name__.lower()
    return ""


def shapes_of(module: fx.GraphModule, example: Sequence[Tensor]) -> dict[fx.Node, tuple[int, ...]]:
    """Run the module and return the shape of every tensor in it."""
    found: dict[fx.Node, tuple[int, ...]] = {}

    class Watched(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor):
                found[n] = tuple(value.shape)
            return value

    with torch.no_grad():
        Watched(module).run(*example)
    return found


def _relabelled(given: Any, attention: GraphAttention, kept: int, lengths: Mapping[int, int]) -> Any:
    """Return arguments with the new number of heads and the new inner width."""
    if isinstance(given, dict):
        return {name: _relabelled(value, attention, kept, lengths) for name, value in given.items()}
    if not isinstance(given, list | tuple):
        return lengths.get(given, given) if isinstance(given, int) else given
    values = [_relabelled(value, attention, kept, lengths) for value in given]
    pairs = range(len(values) - 1)
    places = [at for at in pairs if _is(given[at], attention.heads) and _is(given[at + 1], attention.size)]
    if places:
        values[places[-1]] = kept
    return type(given)(values) if type(given) in {list, tuple} else tuple(values)


def _is(value: object, number: int) -> bool:
    return isinstance(value, int) and value == number


def _keep_outputs(layer: nn.Linear, rows: list[int]) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[rows].clone())
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[rows].clone())
    layer.out_features = len(rows)
