"""config.pbtxt: reading it, and refusing by name what it asks for that would change answers and is not done.

What changes no answer and goes its own way here is accepted and noted: a repository written for Triton is
served as it is. What is done is read by its own module: scheduling, reshaping, warmup, sequences, ensembles.
"""

from pathlib import Path
from typing import Final

from google.protobuf import text_format

from flyweight.protos.inference.model_config_pb2 import (
    ModelConfig,
    ModelInput,
    ModelOutput,
)
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.config_notes import config_notes
from flyweight.server.repository.known_values import first_unknown_value
from flyweight.server.repository.scan import LARGEST_TEXT_CHARACTERS, STATE_FOLDER, WARMUP_FOLDER

ENSEMBLE: Final = "ensemble"

_PLATFORMS: Final = frozenset({"", "onnxruntime_onnx", "onnxruntime", ENSEMBLE})
_BACKENDS: Final = frozenset({"", "onnxruntime"})
_RUNTIMES: Final = frozenset({"", "libtriton_onnxruntime.so"})

_REFUSED: Final = {
    "batch_input": "inputs made from the batch are not",
    "batch_output": "outputs scattered from the batch are not",
    "model_repository_agents": "repository agents are not run",
    "cc_model_filenames": "there are no GPUs to choose a file for",
}
# Triton's core refuses these for an ensemble, which has no session of its own.
_NOT_OF_ENSEMBLES: Final = ("instance_group", "optimization", "model_warmup", "parameters")


def parse_model_config(text: str, path: Path) -> ModelConfig:
    """Read the text of a config.pbtxt.

    Raises:
        LoadFailed: it is not the text form of a model configuration, or too long to be one.
    """
    if len(text) > LARGEST_TEXT_CHARACTERS:
        raise LoadFailed(f"{path} is longer than {LARGEST_TEXT_CHARACTERS} characters; shorten it.")
    try:
        config = text_format.Parse(text, ModelConfig())
    # The library lets a number that no enumeration can hold out as a ValueError.
    except (text_format.ParseError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise LoadFailed(f"{path} is not a model configuration ({reason}); correct it.") from error
    if unknown := first_unknown_value(config):
        raise LoadFailed(f"{path} says {unknown}, and no value has this number; write its name.")
    return config


def is_ensemble(config: ModelConfig | None) -> bool:
    """Tell whether a configuration is of an ensemble, which has no model file."""
    return config is not None and (config.platform == ENSEMBLE or config.HasField("ensemble_scheduling"))


def named_files(config: ModelConfig | None) -> frozenset[str]:
    """Return the files that a configuration names, as paths in the model's folder."""
    if config is None:
        return frozenset()
    labels = {tensor.label_filename for tensor in config.output}
    samples = {
        f"{WARMUP_FOLDER}/{given.input_data_file}"
        for sample in config.model_warmup
        for given in sample.inputs.values()
        if given.input_data_file
    }
    states = {
        f"{STATE_FOLDER}/{initial.data_file}"
        for state in config.sequence_batching.state
        for initial in state.initial_state
        if initial.data_file
    }
    return frozenset((labels | samples | states) - {""})


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
    if is_ensemble(config):
        _require_ensemble(config, what)
    if config.model_transaction_policy.decoupled:
        raise LoadFailed(f"{what} asks for a decoupled model, and each request has one answer here.")
    if config.model_operations.op_library_filename:
        library = config.model_operations.op_library_filename[0]
        raise LoadFailed(f"{what} asks for the library {library!r}, and custom operators are not loaded.")
    _require_plain_tensors(config, what)
    return config_notes(config, what)


def _require_onnx(config: ModelConfig, model: str, what: str) -> None:
    if config.name and config.name != model:
        raise LoadFailed(f"{what} says the name {config.name!r}; a model's name is its folder's, correct it.")
    for field, value, known in (
        ("platform", config.platform, _PLATFORMS),
        ("backend", config.backend, _BACKENDS),
        ("runtime", config.runtime, _RUNTIMES),
    ):
        if value not in known:
            raise LoadFailed(f"{what} asks for the {field} {value!r}, and only ONNX models are served.")


def _require_ensemble(config: ModelConfig, what: str) -> None:
    if config.platform != ENSEMBLE or config.backend:
        raise LoadFailed(
            f"{what} has ensemble_scheduling, whose platform must be {ENSEMBLE!r} and whose backend empty; "
            "correct it."
        )
    if not config.ensemble_scheduling.step:
        raise LoadFailed(f"{what} is of an ensemble without ensemble_scheduling; list its steps.")
    if config.response_cache.enable:
        raise LoadFailed(
            f"{what} asks for a response_cache, and an ensemble's answers change with its steps."
        )
    for field in _NOT_OF_ENSEMBLES:
        if _is_set(config, field):
            raise LoadFailed(f"{what} sets {field}, which is for the steps of an ensemble; move it there.")


def _require_plain_tensors(config: ModelConfig, what: str) -> None:
    for given in config.input:
        if given.allow_ragged_batch:
            raise LoadFailed(f"{what} asks for ragged batches of {given.name!r}, which are not made.")
        if given.format != ModelInput.FORMAT_NONE and len(given.dims) != 3:
            layout = ModelInput.Format.Name(given.format)
            raise LoadFailed(
                f"{what} gives {given.name!r} the format {layout}, which takes 3 dims; correct it."
            )
    tensors: list[ModelInput | ModelOutput] = [*config.input, *config.output]
    for tensor in tensors:
        if tensor.is_shape_tensor:
            raise LoadFailed(f"{what} calls {tensor.name!r} a shape tensor, which ONNX models do not have.")
        if tensor.is_non_linear_format_io:
            raise LoadFailed(
                f"{what} gives {tensor.name!r} a non-linear format, which ONNX models do not have."
            )
        for length in tensor.dims:
            if length < 1 and length != -1:
                raise LoadFailed(
                    f"{what} gives {tensor.name!r} a length of {length}; lengths are 1 or more, or -1."
                )


def _is_set(config: ModelConfig, field: str) -> bool:
    return any(descriptor.name == field for descriptor, _ in config.ListFields())
