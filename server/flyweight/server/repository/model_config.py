"""config.pbtxt: reading it, and refusing by name what it asks for that would change answers and is not done.

What changes no answer (batching, instance groups, warm-up, a response cache, optimisation hints) is accepted
and noted: a repository written for Triton is served as it is.
"""

from pathlib import Path
from typing import Final

from google.protobuf import text_format

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.scan import LARGEST_TEXT_CHARACTERS

_PLATFORMS: Final = frozenset({"", "onnxruntime_onnx"})
_BACKENDS: Final = frozenset({"", "onnxruntime"})

_REFUSED: Final = {
    "ensemble_scheduling": "ensembles are not served",
    "sequence_batching": "sequences of requests with state are not served",
    "batch_input": "inputs made from the batch are not",
    "batch_output": "outputs scattered from the batch are not",
    "model_repository_agents": "repository agents are not run",
}
_NOTED: Final = {
    "dynamic_batching": "requests are not batched together yet",
    "instance_group": "one session runs as many requests side by side as there are cores",
    "model_warmup": "every session is warmed up with its golden sample or with zeros",
    "response_cache": "nothing is cached",
    "optimization": "onnxruntime's own optimisations are used",
}


def parse_model_config(text: str, path: Path) -> ModelConfig:
    """Read the text of a config.pbtxt.

    Raises:
        LoadFailed: it is not the text form of a model configuration, or too long to be one.
    """
    if len(text) > LARGEST_TEXT_CHARACTERS:
        raise LoadFailed(f"{path} is longer than {LARGEST_TEXT_CHARACTERS} characters; shorten it.")
    try:
        return text_format.Parse(text, ModelConfig())
    except text_format.ParseError as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise LoadFailed(f"{path} is not a model configuration ({reason}); correct it.") from error


def require_supported(config: ModelConfig, model: str) -> tuple[str, ...]:
    """Return notes on what is asked for and goes its own way here, as sentences.

    Raises:
        LoadFailed: it asks for something that would change answers and is not done.
    """
    what = f"The config.pbtxt of {model}"
    _require_onnx(config, model, what)
    for field, reason in _REFUSED.items():
        if _is_set(config, field):
            raise LoadFailed(f"{what} asks for {field}, and {reason}; remove it to serve the model alone.")
    if config.model_transaction_policy.decoupled:
        raise LoadFailed(f"{what} asks for a decoupled model, and each request has one answer here.")
    if config.model_operations.op_library_filename:
        library = config.model_operations.op_library_filename[0]
        raise LoadFailed(f"{what} asks for the library {library!r}, and custom operators are not loaded.")
    _require_plain_tensors(config, what)
    return tuple(f"{what} sets {field}: {how}." for field, how in _NOTED.items() if _is_set(config, field))


def _require_onnx(config: ModelConfig, model: str, what: str) -> None:
    if config.name and config.name != model:
        raise LoadFailed(f"{what} says the name {config.name!r}; a model's name is its folder's, correct it.")
    for field, value, known in (
        ("platform", config.platform, _PLATFORMS),
        ("backend", config.backend, _BACKENDS),
    ):
        if value not in known:
            raise LoadFailed(f"{what} asks for the {field} {value!r}, and only ONNX models are served.")


def _require_plain_tensors(config: ModelConfig, what: str) -> None:
    for given in config.input:
        _require_plain(
            given.name, what, reshape=given.HasField("reshape"), shape_tensor=given.is_shape_tensor
        )
        if given.allow_ragged_batch:
            raise LoadFailed(f"{what} asks for ragged batches of {given.name!r}, which are not made.")
    for made in config.output:
        _require_plain(made.name, what, reshape=made.HasField("reshape"), shape_tensor=made.is_shape_tensor)


def _require_plain(name: str, what: str, *, reshape: bool, shape_tensor: bool) -> None:
    if reshape:
        raise LoadFailed(f"{what} reshapes {name!r}, which is not done; send the model's own shape.")
    if shape_tensor:
        raise LoadFailed(f"{what} calls {name!r} a shape tensor, which ONNX models do not have.")


def _is_set(config: ModelConfig, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in config.ListFields())
