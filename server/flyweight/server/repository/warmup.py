"""model_warmup: the requests that a model must answer before it is served.

Source: ModelWarmup in Triton's model_config.proto, and core's backend_model_instance.cc: every sample names
all of an input's lengths, its contents are repeated for every row, and one of no rows is skipped.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from flyweight.protos.inference.model_config_pb2 import ModelConfig, ModelWarmup
from flyweight.protos.tensors import DATATYPES, Array
from flyweight.protos.tensors.bfloat16 import as_sent
from flyweight.server.errors import LoadFailed
from flyweight.server.repository.completion import datatype_of_type
from flyweight.server.repository.files import read_tensor_file
from flyweight.server.repository.scan import WARMUP_FOLDER

# Bounds on what a file of a few lines can make the server do before a model is served.
_MOST_RUNS: Final = 10_000
_LARGEST_SAMPLE_BYTES: Final = 2 << 30


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """One made-up request: its inputs by name, batch axis included, and how often it is run."""

    name: str
    inputs: Mapping[str, Array]
    count: int


def warmup_samples(config: ModelConfig, model: str, folder: Path) -> Iterator[WarmupSample]:
    """Yield the samples of a configuration, one in memory at a time; random data are the same every time.

    Args:
        config: the model's whole configuration.
        model: its name.
        folder: its folder; the samples' files lie in `warmup` there.

    Raises:
        LoadFailed: a sample cannot be made.
    """
    has_batch_axis = config.max_batch_size > 0
    for number, setting in enumerate(config.model_warmup):
        what = f"The config.pbtxt of {model}, in the warm-up sample {setting.name or number!r},"
        if setting.batch_size == 0:
            continue
        if setting.batch_size > max(1, config.max_batch_size):
            raise LoadFailed(
                f"{what} asks for {setting.batch_size} rows where max_batch_size is {config.max_batch_size}; "
                "correct one of them."
            )
        if setting.count > _MOST_RUNS:
            raise LoadFailed(f"{what} asks for {setting.count} runs; at most {_MOST_RUNS} are made.")
        rows = setting.batch_size if has_batch_axis else 0
        random = np.random.default_rng(number)
        inputs = {
            name: _contents(name, given, rows, folder / WARMUP_FOLDER, random, what)
            for name, given in sorted(setting.inputs.items())
        }
        yield WarmupSample(setting.name, inputs, setting.count or 1)


def _contents(
    name: str,
    given: ModelWarmup.Input,
    rows: int,
    folder: Path,
    random: np.random.Generator,
    what: str,
) -> Array:
    """Return the contents of one input; `rows` is 0 where there is no batch axis."""
    datatype, shape = datatype_of_type(given.data_type), tuple(given.dims)
    if datatype not in DATATYPES or any(length < 1 for length in shape):
        raise LoadFailed(f"{what} gives {name!r} no data_type or a free length; write all of them.")
    elements = int(np.prod(shape, dtype=np.float64)) * max(1, rows)
    if elements * max(1, DATATYPES[datatype].itemsize) > _LARGEST_SAMPLE_BYTES:
        raise LoadFailed(f"{what} gives {name!r} more than {_LARGEST_SAMPLE_BYTES} bytes; make it smaller.")
    source = given.WhichOneof("input_data_type")
    if source is None:
        raise LoadFailed(f"{what} says nothing of the contents of {name!r}; write zero_data or another.")
    if source == "input_data_file":
        one = read_tensor_file(folder, given.input_data_file, datatype, shape, what)
    elif source == "random_data":
        one = _random(datatype, shape, random)
    else:
        one = zeros(datatype, shape)
    return np.repeat(one[np.newaxis], rows, axis=0) if rows else one


def zeros(datatype: str, shape: tuple[int, ...]) -> Array:
    """Return zeros of a datatype; empty byte strings for BYTES."""
    if datatype == "BYTES":
        return np.full(shape, b"", dtype=object)
    return as_sent(np.zeros(shape, dtype=DATATYPES[datatype]), datatype)


def _random(datatype: str, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Return random contents: numbers in [0, 1), whole numbers of one byte, strings of none."""
    if datatype == "BYTES":
        return zeros(datatype, shape)
    dtype = DATATYPES[datatype]
    if datatype == "BOOL":
        return random.integers(0, 2, shape).astype(np.bool_)
    if dtype.kind == "f":
        return as_sent(random.random(shape).astype(dtype), datatype)
    return random.integers(0, 128, shape).astype(dtype)
