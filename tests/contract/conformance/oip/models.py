"""The models that a server hosts for the suite: names, tensors, batching, Triton's configuration."""

from dataclasses import dataclass
from typing import Final

from oip.encoding import DATATYPES

LABELS: Final = ("ant", "bee", "cat", "dog")

_SEQUENCE_CONTROLS: Final = """\
sequence_batching {
  max_sequence_idle_microseconds: 60000000
  direct { }
  control_input [
    { name: "START" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [ 0, 1 ] } ] }%s
  ]%s
}
"""
_CORRELATION: Final = """,
    { name: "CORRID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_UINT64 } ] }"""
_IMPLICIT_STATE: Final = """
  state [
    { input_name: "STATE_IN" output_name: "STATE_OUT" data_type: TYPE_INT32 dims: [ 1 ]
      initial_state { name: "zero" data_type: TYPE_INT32 dims: [ 1 ] zero_data: true } }
  ]"""


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output; `dims` leave the batch axis out, -1 is any length."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the suite. With `max_batch_size` above 0 every tensor has a batch axis in front."""

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    max_batch_size: int = 0
    what: str = "gives back its input"
    is_needed: bool = False

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Return what ModelMetadata says of a tensor."""
        return ((-1,) if self.max_batch_size else ()) + tensor.dims


def _identity(datatype: str) -> Model:
    return Model(
        f"identity_{datatype.lower()}",
        (Tensor("INPUT", datatype, (-1,)),),
        (Tensor("OUTPUT", datatype, (-1,)),),
        is_needed=datatype in {"FP32", "BYTES"},
    )


_FOUR: Final = (4,)
ADD_SUB: Final = Model(
    "add_sub",
    (Tensor("INPUT0", "FP32", _FOUR), Tensor("INPUT1", "FP32", _FOUR)),
    (Tensor("OUTPUT0", "FP32", _FOUR), Tensor("OUTPUT1", "FP32", _FOUR)),
    max_batch_size=8,
    what="OUTPUT0 = INPUT0 + INPUT1, OUTPUT1 = INPUT0 - INPUT1; up to eight rows",
    is_needed=True,
)
MODELS: Final = (
    *(_identity(datatype) for datatype in DATATYPES),
    ADD_SUB,
    Model(
        "transpose",
        (Tensor("INPUT", "FP32", (2, 3)),),
        (Tensor("OUTPUT", "FP32", (3, 2)),),
        what="the matrix with its axes exchanged; no batch axis, fixed shapes",
        is_needed=True,
    ),
    Model("scalar", (Tensor("INPUT", "FP32", ()),), (Tensor("OUTPUT", "FP32", ()),)),
    Model(
        "slow",
        (Tensor("ROUNDS", "INT64", (1,)),),
        (Tensor("OUTPUT", "FP32", (1,)),),
        what="gives 1 after a time that grows with ROUNDS (the suite finds out how fast)",
    ),
    Model(
        "classes",
        (Tensor("INPUT", "FP32", _FOUR),),
        (Tensor("OUTPUT", "FP32", _FOUR),),
        max_batch_size=8,
        what=f"gives back its input; the output's labels are {', '.join(LABELS)}",
    ),
    Model(
        "counter",
        (Tensor("INPUT", "INT32", (1,)),),
        (Tensor("OUTPUT", "INT32", (1,)),),
        # As many sequences at once as rows, in Triton's direct scheduling.
        max_batch_size=4,
        what="sums what a sequence has sent so far (sequence batcher)",
    ),
)


def config_text(model: Model, backend: str) -> str:
    """Return the model's config.pbtxt for `backend` (onnxruntime or python)."""
    lines = [f'name: "{model.name}"', f'backend: "{backend}"', f"max_batch_size: {model.max_batch_size}"]
    for kind, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors:
            dims = ", ".join(map(str, tensor.dims))
            labels = ' label_filename: "labels.txt"' if (model.name, kind) == ("classes", "output") else ""
            lines.append(
                f'{kind} {{ name: "{tensor.name}" data_type: {_config_type(tensor.datatype)} '
                f"dims: [ {dims} ]{labels} }}"
            )
    if model.name == "counter":
        is_python = backend == "python"
        parts = (_CORRELATION, "") if is_python else ("", _IMPLICIT_STATE)
        lines.append(_SEQUENCE_CONTROLS % parts)
    lines.append("instance_group { kind: KIND_CPU count: 1 }")
    return "\n".join(lines) + "\n"


def _config_type(datatype: str) -> str:
    return "TYPE_STRING" if datatype == "BYTES" else f"TYPE_{datatype}"
