"""Structured pruning of an ONNX graph as it is, without training: what is left makes up for what went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

import onnx

from flyweight.compressor.errors import PassError, RecipeError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import save_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.layout.view import remove_unread
from flyweight.compressor.passes.prune.allocation import Point, allocate, first_within
from flyweight.compressor.passes.prune.elimination import Remainder, eliminate, lost
from flyweight.compressor.passes.prune.graph_channels import Channels, inner_channels
from flyweight.compressor.passes.prune.graph_cut import (
    Seen,
    checking_samples,
    cut,
    give_biases,
    look,
    mirrored,
    overrides,
)
from flyweight.compressor.passes.prune.graph_harm import GraphHarm
from flyweight.compressor.passes.prune.graph_weights import GraphWeight
from flyweight.compressor.passes.prune.schedule import require_ratio
from flyweight.compressor.passes.prune.work import Work
from flyweight.compressor.passes.quantize.preparation import prepare, with_shapes
from flyweight.compressor.passes.quantize.suitability import check_finite_weights, check_in_floating_point
from flyweight.compressor.sessions import quiet_tools

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

_MEASURED: Final = 0.25
"""The fraction of each layer's channels whose removal is measured; other fractions are put in proportion to
the squared error of the layer that reads them, which is known for all."""
_MOST_COLUMNS: Final = 4608
"""Of a reader: a 3x3 convolution of 512 channels. A covariance takes 170 MB, and every reader holds two;
its inverse takes 10 seconds."""
_MOST_BYTES: Final = 2 << 30
"""Of all readers' moments at once: what ResNet-50 (1.6 GB) and BERT-base (1.8 GB) need."""

Kept = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PruneGraph(Pass):
    """Removes the channels a graph can best do without, and fits the layers that read them anew.

    For who has nothing but an ONNX file. Channels that one layer makes and one layer reads, such as those
    inside the blocks of EfficientNet, ResNet or a transformer, go by optimal brain surgeon: the one whose
    loss the others make up for best, by least squares on calibration data, goes first (elimination.py has
    formulas and sources). How many each layer loses follows from the harm to the answers that is measured
    when it alone loses some, and from the work this saves.

    Attributes:
        ratio: fraction of the graph's work (multiply-adds, those of depthwise convolutions counted four
            times) that goes. 0.1 is what an image network loses almost unharmed; nothing is trained.
        most: fraction of one layer's channels that may go.
        round_to: widths become multiples of this: kernels are fastest at multiples of 16.
        mirror: whether images are looked at from left to right and from right to left, for photographs of
            which there are few: what 5 % of the work does to EfficientNet-Lite0 halves, with 40 of them.
    """

    name: ClassVar[str] = "prune-graph"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.ONNX

    ratio: float = 0.1
    most: float = 0.5
    round_to: int = 16
    mirror: bool = False

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            RecipeError: one is out of its range.
        """
        require_ratio(self.ratio)
        require_ratio(self.most)
        if self.round_to < 1:
            raise RecipeError(f"round_to is at least 1, not {self.round_to}.")

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the graph with fewer channels.

        Raises:
            PassError: no channels can go without touching several readers, the graph is quantized already,
                or its weights or what its layers see are not finite.
            ModelError: the graph cannot be read or run.
            DataError: the calibration data do not fit it.
        """
        with quiet_tools():
            graph = prepare(model.onnx_path(), context.new_path)
            check_in_floating_point(graph)
            check_finite_weights(graph)
            give_biases(graph)
            found = self._channels(graph)
            if self.mirror:
                context = replace(context, calibration=mirrored(context.calibration))
            seen = look(graph, found, context)
            work = Work(graph, found)
            kept = self._plan(graph, seen, work, context)
            going = [each for each in seen if kept[each.channels.name] < each.channels.width]
            if not going:
                return PassResult(model, changed=False, notes=("No channel could go for what was asked.",))
            note = _describe(seen, kept, work)
            left = []
            for done, each in enumerate(going):
                context.check_time()
                context.progress("fitting layers", done, len(going))
                left.append((each, self._remainder(each, kept[each.channels.name])))
            context.progress("fitting layers", len(going), len(going))
            cut(graph, left)
            remove_unread(graph)
            path = save_graph(with_shapes(graph), context.new_path("prune-graph"))
        return PassResult(Model(path=path), changed=True, notes=(note,))

    def _channels(self, graph: onnx.ModelProto) -> list[Channels]:
        """Return the channels that may go.

        Raises:
            PassError: there are none.
        """
        found = [
            channels
            for channels in inner_channels(graph)
            if channels.width > self.round_to and channels.width * channels.block <= _MOST_COLUMNS
        ]
        if not found:
            raise PassError(
                f"No layer gives more than {self.round_to} channels that only one other layer reads, so none "
                "can go from the graph alone; prune cuts what several layers share, and trains."
            )
        return _within_memory(found)

    def _remainder(self, seen: Seen, kept: int) -> Remainder:
        """Return what is left of a reader, fitted on all samples."""
        moments = (seen.fitting + seen.checking).second(centred=seen.centred)
        for remainder in eliminate(moments, seen.weights, seen.channels.block, self.round_to):
            if len(remainder.kept) == kept:
                return remainder
        raise AssertionError("only numbers that elimination passes are planned")

    def _plan(self, graph: onnx.ModelProto, seen: Sequence[Seen], work: Work, context: "Context") -> Kept:
        """Return how many channels stay, by name, so that the work fits with the least expected harm."""
        odd = checking_samples(context.calibration.samples)
        harm = GraphHarm(graph, _readers(graph, seen), context, among=odd if len(odd) else None)
        if not harm.is_measurable:
            raise PassError("The graph answers with integers alone, from which no harm could be told.")
        curves = {}
        for done, each in enumerate(seen):
            context.check_time()
            context.progress("measuring layers", done, len(seen))
            curves[each.channels.name] = self._curve(each, harm, work)
        context.progress("measuring layers", len(seen), len(seen))
        whole = work.left({})
        most = sum(max((point.saved for point in points), default=0.0) for points in curves.values())
        widths = {each.channels.name: each.channels.width for each in seen}

        def plan_at(level: float) -> dict[str, int]:
            chosen = allocate(curves, level * most)
            return {name: round(width * (1 - chosen[name].ratio)) for name, width in widths.items()}

        def cost(kept: Kept) -> float:
            return work.left({name: count / widths[name] for name, count in kept.items()})

        return first_within(plan_at, cost, (1 - self.ratio) * whole)

    def _curve(self, seen: Seen, harm: GraphHarm, work: Work) -> list[Point]:
        """Return what removing more and more of some channels saves, and how much harm is expected of it."""
        name, width = seen.channels.name, seen.channels.width
        fewest = max(round(width * (1 - self.most)), 1)
        moments = seen.fitting.second(centred=seen.centred)
        checked = (seen.checking if seen.checking.rows else seen.fitting).second(centred=seen.centred)
        steps = eliminate(moments, seen.weights, seen.channels.block, self.round_to)
        left = list(islice(steps, -(-(width - fewest) // self.round_to)))
        left = [remainder for remainder in left if len(remainder.kept) >= fewest]
        if not left:
            return []
        errors = [lost(checked, seen.weights, remainder, seen.channels.block) for remainder in left]
        tried = min(range(len(left)), key=lambda place: abs(len(left[place].kept) / width - (1 - _MEASURED)))
        measured = harm.noise_of(overrides(seen, left[tried], seen.fitting.mean))
        price = max(measured, 0.0) / max(errors[tried], 1e-30)
        whole = work.left({})
        return [
            Point(
                1 - len(remainder.kept) / width,
                whole - work.left({name: len(remainder.kept) / width}),
                price * error,
            )
            for remainder, error in zip(left, errors, strict=True)
        ]


def _within_memory(found: Sequence[Channels]) -> list[Channels]:
    """Return those whose moments fit into memory together, chosen from the narrowest readers on."""
    room, chosen = _MOST_BYTES, set[str]()
    for channels in sorted(found, key=lambda each: each.width * each.block):
        room -= 2 * 8 * (channels.width * channels.block) ** 2
        if room >= 0:
            chosen.add(channels.name)
    return [channels for channels in found if channels.name in chosen]


def _readers(graph: onnx.ModelProto, seen: Sequence[Seen]) -> list[GraphWeight]:
    """Return the weights and biases that change when channels go."""
    stored = {tensor.name: tensor for tensor in graph.graph.initializer}
    layers = [each.channels.reader for each in seen]
    names = [layer.weight.name for layer in layers]
    names += [layer.bias.name for layer in layers if layer.bias is not None]
    return [GraphWeight(name, 0, stored[name]) for name in names]


def _describe(seen: Sequence[Seen], kept: Kept, work: Work) -> str:
    widths = {each.channels.name: each.channels.width for each in seen}
    left = work.left({name: count / widths[name] for name, count in kept.items()}) / work.left({})
    gone = sum(widths.values()) - sum(kept.values())
    layers = sum(kept[name] < width for name, width in widths.items())
    return (
        f"{gone:,} of {sum(widths.values()):,} channels inside the graph went, from {layers} layers, and "
        f"with them {1 - left:.0%} of its work; the layers that read them were fitted anew."
    )
