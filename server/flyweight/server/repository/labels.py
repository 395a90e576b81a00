"""The names of classes: the label files of a model's outputs, read once, when the model is loaded."""

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from flyweight.protos.inference.model_config_pb2 import ModelConfig
from flyweight.protos.variant.names import is_inside_folder
from flyweight.server.errors import LoadFailed

# A million names of ordinary length; they stay in memory for as long as the model does.
_MOST_BYTES: Final = 16 << 20


def read_labels(config: ModelConfig, folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Return the names of the classes of every output that has a `label_filename`, by output and index.

    Args:
        config: the model's configuration.
        folder: the model's own folder, with config.pbtxt in it.

    Raises:
        LoadFailed: a file cannot be read, is no text, or does not lie in the folder.
    """
    return MappingProxyType(
        {
            output.name: _read(folder, output.name, output.label_filename)
            for output in config.output
            if output.label_filename
        }
    )


def _read(folder: Path, output: str, name: str) -> tuple[str, ...]:
    path = folder / name
    what = f"{path}, the label_filename of the output {output!r},"
    try:
        # Resolved as well: a link in the folder must not show what lies elsewhere.
        inside = is_inside_folder(name) and path.resolve().is_relative_to(folder.resolve())
        if not inside:
            raise LoadFailed(f"{what} is not in the model's folder; put the file there.")
        text = _read_bytes(path, what).decode("utf-8")
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise LoadFailed(f"{what} cannot be read ({reason}); put a file there, one label a line.") from error
    except UnicodeDecodeError as error:
        raise LoadFailed(f"{what} is not UTF-8 text; convert it.") from error
    return tuple(line.removesuffix("\r") for line in text.removesuffix("\n").split("\n"))


def _read_bytes(path: Path, what: str) -> bytes:
    # Opening a pipe would otherwise wait for its writer, and the load for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise LoadFailed(f"{what} is not a regular file; put one there, one label a line.")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise LoadFailed(f"{what} is longer than {_MOST_BYTES} bytes; shorten it.")
    return data
