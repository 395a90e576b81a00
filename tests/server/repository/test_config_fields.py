"""Every field of Triton's configuration is done, noted or refused, and the document says which."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from google.protobuf.descriptor import Descriptor

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.config_notes import NOTED, batching_notes, config_notes
from flyweight.server.repository.ensembles import ensemble_graph
from flyweight.server.repository.model_config import parse_model_config, require_supported
from flyweight.server.repository.scheduling import serving_of
from flyweight.server.repository.session_parameters import with_parameters
from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.signature import Signature, TensorSpec
from flyweight.server.sequences import sequences_of

if TYPE_CHECKING:
    from google.protobuf.message import Message

WHAT = "The config.pbtxt of m"
DOCUMENT = Path(__file__).parents[3] / "docs" / "triton-repositories.md"

# What there is to be done with: a field counts with all that is in it, unless that stands in its own right.
DONE = [
    *("name", "platform", "backend", "runtime", "version_policy", "max_batch_size"),
    *("input", "output", "dynamic_batching", "sequence_batching", "ensemble_scheduling", "instance_group"),
    *("default_model_filename", "parameters", "optimization.graph.level", "model_warmup", "response_cache"),
]
STEP = 'step [{model_name: "a" input_map {key: "x" value: "x"} output_map {key: "y" value: "y"} '
# Texts that ask for what is not done.
REFUSED = {
    "input.is_shape_tensor": 'input [{name: "x" is_shape_tensor: true}]',
    "input.allow_ragged_batch": 'input [{name: "x" allow_ragged_batch: true}]',
    "input.is_non_linear_format_io": 'input [{name: "x" is_non_linear_format_io: true}]',
    "output.is_shape_tensor": 'output [{name: "x" is_shape_tensor: true}]',
    "output.is_non_linear_format_io": 'output [{name: "x" is_non_linear_format_io: true}]',
    "batch_input": "batch_input [{target_name: 'x'}]",
    "batch_output": "batch_output [{target_name: 'x'}]",
    "optimization.cuda.graphs": "optimization {cuda {graphs: true}}",
    "optimization.cuda.graph_spec": "optimization {cuda {graph_spec {}}}",
    "optimization.execution_accelerators": (
        "optimization {execution_accelerators {gpu_execution_accelerator {name: 'tensorrt'}}}"
    ),
    "sequence_batching.iterative_sequence": "sequence_batching {iterative_sequence: true}",
    "sequence_batching.direct.minimum_slot_utilization": (
        "sequence_batching {direct {minimum_slot_utilization: 0.5}}"
    ),
    "sequence_batching.state.use_growable_memory": (
        'sequence_batching {state {input_name: "i" output_name: "o" data_type: TYPE_FP32 dims: [1] '
        "use_growable_memory: true}}"
    ),
    "ensemble_scheduling.step.model_namespace": (
        f'ensemble_scheduling {{{STEP} model_namespace: "n"}}]}} platform: "ensemble" '
        'input [{name: "x"}] output [{name: "y"}]'
    ),
    "instance_group.gpus": "instance_group [{gpus: [0]}]",
    "instance_group.secondary_devices": "instance_group [{secondary_devices {device_id: 1}}]",
    "instance_group.profile": "instance_group [{profile: 'p'}]",
    "instance_group.passive": "instance_group [{passive: true}]",
    "cc_model_filenames": 'cc_model_filenames {key: "7.5" value: "t4.onnx"}',
    "model_operations": 'model_operations {op_library_filename: "ops.so"}',
    "model_transaction_policy.decoupled": "model_transaction_policy {decoupled: true}",
    "model_repository_agents": "model_repository_agents {agents: [{name: 'checksum'}]}",
}


def leaves(message: Descriptor, above: str = "") -> Iterator[str]:
    """Yield the paths of a message's innermost fields."""
    for field in message.fields:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            inner = inner.fields_by_name["value"].message_type
        if inner is None or not inner.fields:
            yield above + field.name
        else:
            yield from leaves(inner, f"{above}{field.name}.")


def written(path: str) -> ModelConfig:
    """Return a configuration in which one field is set."""
    config = ModelConfig()
    message: Message = config
    *above, last = path.split(".")
    for name in above:
        field = message.DESCRIPTOR.fields_by_name[name]
        found = getattr(message, name)
        message = found.add() if field.is_repeated else found
        message.SetInParent()
    field = message.DESCRIPTOR.fields_by_name[last]
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        getattr(message, last)["key"] = "value"
    elif field.message_type is not None:
        getattr(message, last).SetInParent()
    else:
        setattr(message, last, "text" if field.type == field.TYPE_STRING else 1)
    return config


@pytest.mark.parametrize("leaf", list(leaves(ModelConfig.DESCRIPTOR)))
def test_every_field_is_done_noted_or_refused(leaf: str) -> None:
    """A field that a newer protocol brings needs a decision, and a row in the document."""
    known = {*DONE, *REFUSED, *NOTED}
    assert any(leaf == path or leaf.startswith(f"{path}.") for path in known)


@pytest.mark.parametrize("path", NOTED)
def test_what_has_no_meaning_here_is_noted_by_name(path: str) -> None:
    (note,) = config_notes(written(path), WHAT)
    assert note.startswith(f"{WHAT} sets {path}, which has no meaning here: ")


@pytest.mark.parametrize("path", REFUSED)
def test_what_is_not_done_is_refused(path: str) -> None:
    with pytest.raises(LoadFailed):
        read_all_of(parse_model_config(REFUSED[path], Path("config.pbtxt")))


def read_all_of(config: ModelConfig) -> None:
    """Read a configuration as a load does."""
    session = Signature((TensorSpec("i", "FP32", (1,)),), (TensorSpec("o", "FP32", (1,)),))
    require_supported(config, "m")
    with_parameters(SessionSettings(), config, "m")
    serving_of(config, session)
    sequences_of(config, "m", Path(), session)
    if config.HasField("ensemble_scheduling"):
        ensemble_graph(config, "m")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "dynamic_batching {default_priority_level: 2}",
            "sets dynamic_batching.default_priority_level, which has no meaning without priority_levels.",
        ),
        (
            'ensemble_scheduling {} default_model_filename: "m.onnx"',
            "sets default_model_filename, which has no meaning for an ensemble.",
        ),
        (
            "sequence_batching {control_input {control {kind: CONTROL_SEQUENCE_START data_type: TYPE_FP32}}}",
            "sets control_input.control.data_type, which has no meaning but for CONTROL_SEQUENCE_CORRID.",
        ),
        (
            'model_warmup [{name: "a" batch_size: 1}, {inputs {}}]',
            "has the warm-up sample 1 with a batch_size of 0: it is not run.",
        ),
    ],
)
def test_what_has_no_meaning_where_it_stands_is_noted(text: str, said: str) -> None:
    config = parse_model_config(text, Path("config.pbtxt"))
    assert config_notes(config, WHAT) == (f"{WHAT} {said}",)


@pytest.mark.parametrize(
    "text",
    [
        "dynamic_batching {default_priority_level: 2 priority_levels: 3}",
        'default_model_filename: "m.onnx"',
        "sequence_batching {control_input {control {kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64}}}",
        "model_warmup [{batch_size: 1}]",
    ],
)
def test_what_means_something_where_it_stands_needs_no_note(text: str) -> None:
    assert config_notes(parse_model_config(text, Path("config.pbtxt")), WHAT) == ()


def test_batches_without_a_batch_axis_are_noted() -> None:
    config = parse_model_config("dynamic_batching {}", Path("config.pbtxt"))
    (note,) = batching_notes(config, 0, WHAT)
    assert note.startswith(f"{WHAT} asks for dynamic_batching with a max_batch_size of 0")
    assert batching_notes(config, 8, WHAT) == batching_notes(ModelConfig(), 0, WHAT) == ()


def rows() -> list[tuple[str, str]]:
    """Return the first two cells of every row of the document's table."""
    cells = [line.split("|") for line in DOCUMENT.read_text(encoding="utf-8").splitlines()]
    return [(parts[1], parts[2].strip()) for parts in cells if len(parts) > 3]


@pytest.mark.source
@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((path, "done") for path in DONE),
        *((path, "noted") for path in NOTED),
        *((path, "refused") for path in REFUSED),
    ],
)
def test_the_document_says_what_becomes_of_a_field(path: str, status: str) -> None:
    names = (f"`{path}`", f"`{path.rpartition('.')[2]}`")
    assert any(found == status and any(name in cell for name in names) for cell, found in rows())
