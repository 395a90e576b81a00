"""Why is it not faster? Findings about the graph that really runs, each with what to do about it."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

import onnx

from flyweight.compressor.explain.profiling import Kernel, Profile
from flyweight.compressor.onnx_model import attribute
from flyweight.compressor.processor import this_processor

_FLOAT_PRODUCTS: Final = frozenset(
    {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul", "LSTM", "GRU", "RNN"}
)
_INTEGER_PRODUCTS: Final = frozenset(
    {
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "QAttention",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "DynamicQuantizeLSTM",
        "ConvInteger",
    }
)
_CONVERSIONS: Final = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
_ACTIVATIONS: Final = frozenset(
    {"HardSwish", "HardSigmoid", "Sigmoid", "QuickGelu", "Gelu", "FastGelu", "Erf", "Mish", "Softplus", "Elu"}
)
_LAYOUT: Final = frozenset({"Transpose", "ReorderInput", "ReorderOutput", "Reshape"})
_COPIES: Final = frozenset({"Concat", "Slice", "Gather", "Pad", "Expand", "Cast"})
# A finding that explains less than this of the time is not worth a reader's.
_SMALLEST_SHARE: Final = 0.03
_MOST_NODES: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason.

    Attributes:
        finding: a sentence.
        nodes: the nodes it is about, the slowest first; at most eight.
        share: of a run's time that these nodes take, or None where it is not about time.
        remedy: what to do, a sentence.
    """

    finding: str
    nodes: tuple[str, ...]
    share: float | None
    remedy: str


def audit(
    profile: Profile, source: onnx.ModelProto, zeros: float = 0.0, *, halves: bool = False
) -> tuple[Finding, ...]:
    """Return what keeps a model from being faster, the costliest first.

    Args:
        profile: of the model as it is served.
        source: the model's own graph; its weights need not be loaded.
        zeros: the share of its weights that are zero.
        halves: whether weights are stored as fp16.
    """
    total = max(profile.run_seconds, profile.kernel_seconds, 1e-9)
    rules: tuple[Callable[[Profile, float], Finding | None], ...] = (
        _integer_convolutions,
        _float_islands,
        _conversions,
        _activations,
        _layout,
        _copies,
        _overhead,
    )
    looked = [*(rule(profile, total) for rule in rules), _misaligned(source, profile, total)]
    found = [finding for finding in looked if finding is not None]
    found.sort(key=lambda finding: -(finding.share or 0))
    return (*found, *_about_storage(zeros, halves=halves))


def _about_storage(zeros: float, *, halves: bool) -> Iterable[Finding]:
    if zeros >= 0.3:
        yield Finding(
            f"{zeros:.0%} of the weights are zero, and are multiplied like any other number.",
            (),
            None,
            "Remove whole channels with `prune` for speed; `encode` makes the zeros pay in the file.",
        )
    if halves:
        yield Finding(
            "Weights are stored as fp16 and become fp32 when the model is loaded.",
            (),
            None,
            "fp16 halves the file alone; quantize for speed and memory.",
        )


def _integer_convolutions(profile: Profile, total: float) -> Finding | None:
    return _about(
        [kernel for kernel in profile.kernels if kernel.operator == "ConvInteger"],
        total,
        "Convolutions run as ConvInteger, which was several times slower than fp32 on every network tried.",
        "Quantize convolutions statically (`static-int8`), or leave them in fp32 with dynamic int8.",
    )


def _float_islands(profile: Profile, total: float) -> Finding | None:
    operators = {kernel.operator for kernel in profile.kernels}
    if not operators & _INTEGER_PRODUCTS:
        return None
    floats = [
        kernel
        for kernel in profile.kernels
        if kernel.operator in _FLOAT_PRODUCTS and "float" in kernel.input_types[:1]
    ]
    return _about(
        floats,
        total,
        f"{len(floats)} of the layers with weights still compute in fp32.",
        "If none of them is excluded on purpose, their surroundings keep them in fp32: operators before or "
        "after them without an integer kernel; calibrate these too, or replace them.",
    )


def _conversions(profile: Profile, total: float) -> Finding | None:
    """Quantize and Dequantize nodes that did not melt into an integer kernel, and what stands beside them."""
    nodes = [kernel for kernel in profile.kernels if kernel.operator in _CONVERSIONS]
    beside = _neighbours(profile.graph)
    blamed = ", ".join(beside) if beside else "the model's inputs and outputs"
    return _about(
        nodes,
        total,
        f"{len(nodes)} conversions between fp32 and int8 run on their own, beside {blamed}.",
        "These operators have no integer kernel here: replace them (`replace-activations`; means over space "
        "as GlobalAveragePool), or exclude their layers so that fewer borders are crossed."
        if beside
        else "At the borders of the model they cannot be avoided.",
    )


def _neighbours(model: onnx.ModelProto) -> list[str]:
    """Return the float operators that most often read from or write to a conversion."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    beside: Counter[str] = Counter()
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            beside[makers.get(node.input[0], "")] += 1
        for name in node.input:
            if makers.get(name) == "DequantizeLinear":
                beside[node.op_type] += 1
    for known in ("", *_CONVERSIONS):
        beside.pop(known, None)
    return [operator for operator, _ in beside.most_common(4)]


def _activations(profile: Profile, total: float) -> Finding | None:
    nodes = [kernel for kernel in profile.kernels if kernel.operator in _ACTIVATIONS]
    kinds = ", ".join(sorted({kernel.operator for kernel in nodes}))
    return _about(
        nodes,
        total,
        f"Activations without a fast kernel ({kinds}) take time of their own; ReLU would cost nothing, "
        "because it melts into the layer before.",
        "Replace them with ReLU and retrain (`replace-activations`, then `fine-tune`).",
    )


def _misaligned(source: onnx.ModelProto, profile: Profile, total: float) -> Finding | None:
    """Look at the widths in the model itself: onnxruntime pads them in what it makes of it."""
    multiple = this_processor().preferred_multiple
    # The last layer's width is the number of classes.
    names = [name for name, width in _widths(source)[:-1] if width > multiple and width % multiple]
    if not names:
        return None
    seconds = sum(kernel.seconds for kernel in profile.kernels if kernel.node.startswith(tuple(names)))
    return Finding(
        f"{len(names)} layers have a width that is no multiple of {multiple}; their kernels run part-empty.",
        tuple(names[:_MOST_NODES]),
        seconds / total or None,
        f"Round widths with `prune: {{round_to: {multiple}}}`.",
    )


def _widths(model: onnx.ModelProto) -> list[tuple[str, int]]:
    """Return the layers with weights, by node name, and how many channels they give."""
    dims = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in dims:
            dims[node.output[0]] = dims[node.input[0]]
    found = []
    for node in model.graph.node:
        place = 3 if node.op_type in {"QLinearConv", "QLinearMatMul"} else 1
        shape = dims.get(node.input[place], ()) if len(node.input) > place else ()
        if node.op_type in {"Conv", "QLinearConv", "ConvInteger"} and shape:
            found.append((node.name, shape[0]))
        elif node.op_type in {"Gemm", "MatMul", "QLinearMatMul", "MatMulInteger"} and len(shape) == 2:
            turned = attribute(node, "transB", 0)
            found.append((node.name, shape[0 if turned else 1]))
    return [(name, width) for name, width in found if name]


def _layout(profile: Profile, total: float) -> Finding | None:
    return _about(
        [kernel for kernel in profile.kernels if kernel.operator in _LAYOUT],
        total,
        "Time goes into turning tensors from one memory layout into another.",
        "Integer convolutions want channels last: let neighbouring layers be quantized together, so that a "
        "stretch is turned once.",
    )


def _copies(profile: Profile, total: float) -> Finding | None:
    return _about(
        [kernel for kernel in profile.kernels if kernel.operator in _COPIES],
        total,
        "Time goes into copying: concatenations, slices, gathers, casts.",
        "Sums instead of concatenations, or a shallower network, would save it; compression cannot.",
    )


def _overhead(profile: Profile, total: float) -> Finding | None:
    """Return what is left of a run after its kernels: the price of stepping from node to node."""
    rest = profile.run_seconds - profile.kernel_seconds
    share = rest / total
    if share < 0.2 or not profile.kernels:
        return None
    return Finding(
        f"{share:.0%} of a run passes between kernels: {len(profile.kernels)} nodes in "
        f"{profile.run_seconds * 1e6:.0f} microseconds.",
        (),
        share,
        "So small a model pays for each of its nodes: fuse layers, drop blocks, or send larger batches.",
    )


def _about(kernels: Collection[Kernel], total: float, finding: str, remedy: str) -> Finding | None:
    share = sum(kernel.seconds for kernel in kernels) / total
    if not kernels or share < _SMALLEST_SHARE:
        return None
    slowest = sorted(kernels, key=lambda kernel: -kernel.seconds)[:_MOST_NODES]
    return Finding(finding, tuple(kernel.node for kernel in slowest), share, remedy)
