"""config.pbtxt: everything that is done with its text before a model is served.

The first byte says of which model it is, each has other tensors, and whether the rest is the text, or the
JSON form as it comes with a load, or a configuration as a message, of which the text is made first.
"""

import itertools
from functools import cache
from pathlib import Path

from google.protobuf import json_format, text_format
from google.protobuf.message import DecodeError

from flyweight.protos.errors import FlyweightError
from flyweight.protos.inference.grpc_service_pb2 import ModelRepositoryParameter
from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.tensors import DATATYPES
from flyweight.server.repository.completion import complete
from flyweight.server.repository.ensembles import check_steps, ensemble_graph
from flyweight.server.repository.labels import read_labels
from flyweight.server.repository.model_config import (
    is_ensemble,
    named_files,
    parse_model_config,
    require_supported,
)
from flyweight.server.repository.reshaping import reshapes_of
from flyweight.server.repository.scheduling import serving_of
from flyweight.server.repository.session_parameters import with_parameters
from flyweight.server.repository.warmup import warmup_samples
from flyweight.server.rpc.uploads import read_upload
from flyweight.server.runtime.seam import SessionSettings, Signature, TensorSpec
from flyweight.server.runtime.session_options import make_options
from flyweight.server.sequences import hide, sequences_of
from tests.fuzz.scratch import scratch_folder

_SIGNATURES = (
    Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 2)),)),
    Signature(
        (
            TensorSpec("x", "FP32", (-1, 3, -1)),
            TensorSpec("s", "FP32", (-1, 2)),
            TensorSpec("c", "INT32", (-1, 1)),
        ),
        (TensorSpec("y", "BYTES", (-1, 5)), TensorSpec("t", "FP32", (-1, 2))),
    ),
    Signature((TensorSpec("x", "INT64", ()),), (TensorSpec("y", "INT64", ()),)),
    Signature(
        tuple(TensorSpec(f"x{kind.lower()}", kind, (2, -1), optional=True) for kind in DATATYPES),
        (TensorSpec("y", "BOOL", (2,)),),
    ),
)
_MOST_SAMPLES = 8
# First bytes from here on are for the JSON form, and for messages.
_JSON, _MESSAGE = 0x40, 0x80


@cache
def _folder() -> Path:
    folder = scratch_folder()
    (folder / "labels.txt").write_text("zero\none\n")
    for name in ("warmup", "initial_state"):
        (folder / name).mkdir()
        (folder / name / "data").write_bytes(bytes(16))
    return folder


def check(data: bytes) -> None:
    """Bring up a model of a configuration as far as its session; anything but a LoadFailed is a bug."""
    which = data[0] if data else 0
    session = _SIGNATURES[which % len(_SIGNATURES)]
    try:
        config = parse_model_config(_text_of(which, data[1:]), Path("config.pbtxt"))
        named_files(config)
        require_supported(config, "m")
        _bring_up(config, session)
    except FlyweightError as error:
        sentence = str(error)
    else:
        return
    assert sentence.endswith("."), sentence


def _text_of(which: int, content: bytes) -> str:
    if which < _JSON:
        return content.decode("utf-8", "replace")
    if which < _MESSAGE:
        text = content.decode("utf-8", "replace")
        upload = read_upload({"config": ModelRepositoryParameter(string_param=text)})
        assert upload is not None
        return upload.config_text
    try:
        return text_format.MessageToString(ModelConfig.FromString(content))
    except DecodeError:
        return ""


def _bring_up(config: ModelConfig, session: Signature) -> None:
    folder = _folder()
    if is_ensemble(config):
        graph = ensemble_graph(config, "m")
        check_steps(graph, [session for _ in graph.steps], config.max_batch_size, "The ensemble 'm'")
        completed, signature = complete(config, "m", graph.signature)
        read_labels(completed, folder)
        return
    make_options(with_parameters(SessionSettings(), config, "m"), 2, "m")
    spec = sequences_of(config, "m", folder, session)
    completed, signature = complete(config, "m", hide(session, spec, config))
    reshapes_of(completed, "m")
    serving = serving_of(config, signature)
    assert serving.max_rows >= 0
    read_labels(completed, folder)
    if _sample_bytes(config) <= 1 << 20:
        for sample in itertools.islice(warmup_samples(completed, "m", folder), _MOST_SAMPLES):
            assert sample.count > 0
    # It is told over the wire and written to the log.
    assert completed.SerializeToString()


def _sample_bytes(config: ModelConfig) -> float:
    """Return about what the samples take: gigabytes of zeros are allowed, and are no use here."""
    total = 0.0
    for sample in config.model_warmup:
        for given in sample.inputs.values():
            elements = float(max(1, sample.batch_size))
            for length in given.dims:
                elements *= max(1, length)
            total += elements
    return total


def _sequences() -> str:
    return """
        max_batch_size: 4
        sequence_batching {
          max_sequence_idle_microseconds: 5000
          oldest { max_candidate_sequences: 2 max_queue_delay_microseconds: 7 preferred_batch_size: [2, 4] }
          control_input [
            { name: "c" control [ { kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] } ] } ]
          state [ { input_name: "s" output_name: "t" data_type: TYPE_FP32 dims: [2]
            initial_state: { name: "z" data_type: TYPE_FP32 dims: [2] zero_data: true } } ]
        }"""


def _batching() -> str:
    return """
        name: "m" platform: "onnxruntime_onnx" max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [2, 2] reshape { shape: [4] } } ]
        output [ { name: "y" data_type: TYPE_FP32 dims: [-1] label_filename: "labels.txt" } ]
        dynamic_batching {
          preferred_batch_size: [4, 8] max_queue_delay_microseconds: 100 priority_levels: 2
          default_priority_level: 1
          default_queue_policy { timeout_action: DELAY default_timeout_microseconds: 5 max_queue_size: 3 }
          priority_queue_policy [ { key: 2 value { allow_timeout_override: true } } ] }
        instance_group [ { count: 2 kind: KIND_CPU } ]
        response_cache { enable: true }
        version_policy { specific { versions: [1, 2] } }
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        parameters { key: "session.disable_prepacking" value { string_value: "1" } }
        optimization { graph { level: 1 } }"""


def _warming() -> str:
    return """
        max_batch_size: 2
        model_warmup [
          { name: "a" batch_size: 2 count: 3 inputs { key: "x" value {
            data_type: TYPE_FP32 dims: [4] random_data: true } } },
          { batch_size: 1 inputs { key: "x" value {
            data_type: TYPE_FP32 dims: [4] input_data_file: "data" } } } ]"""


def _ensemble() -> str:
    return """
        platform: "ensemble" max_batch_size: 2
        input [ { name: "a" data_type: TYPE_FP32 dims: [4] } ]
        output [ { name: "b" data_type: TYPE_FP32 dims: [2] } ]
        ensemble_scheduling { step [
          { model_name: "n" model_version: -1
            input_map { key: "x" value: "a" } output_map { key: "y" value: "b" } } ] }"""


def seeds() -> list[bytes]:
    """Return configurations that people write."""
    found = []
    for which, make in ((0, _batching), (1, _sequences), (0, _warming), (0, _ensemble)):
        config = text_format.Parse(make(), ModelConfig())
        text = text_format.MessageToString(config).encode()
        found += [bytes([which]) + text, bytes([which + _MESSAGE]) + config.SerializeToString()]
        found.append(bytes([which + _JSON]) + json_format.MessageToJson(config, indent=None).encode())
    plain = 'input { name: "x%s" data_type: TYPE_%s dims: [2, -1] optional: true }\n'
    every = "".join(plain % (kind.lower(), "STRING" if kind == "BYTES" else kind) for kind in DATATYPES)
    return [*found, b"\3" + every.encode(), b"\2max_batch_size: 0", b"\0"]


def words() -> list[str]:
    """Return the names that a configuration knows."""
    names: set[str] = set()
    waiting, met = [ModelConfig.DESCRIPTOR], set[str]()
    while waiting:
        message = waiting.pop()
        if message.full_name in met:
            continue
        met.add(message.full_name)
        names |= {field.name for field in message.fields}
        names |= {value.name for kind in message.enum_types for value in kind.values}
        waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return [*sorted(names), *(f"TYPE_{kind}" for kind in DATATYPES), "TYPE_STRING"]
