"""A variant's file as a server has it in memory: itself, or what its coded file stands for."""

from pathlib import Path

from flyweight.compressor.errors import ModelError
from flyweight.protos.coded import CodedError, decode_file
from flyweight.protos.variant.names import CODED_SUFFIX


def servable(path: Path) -> tuple[Path, Path | None]:
    """Return the ONNX file that runs, and the one that is published if that is another, a coded file.

    What a coded file stands for is written beside it, once.

    Raises:
        ModelError: a coded file cannot be decoded, or the graph not be written.
    """
    if path.suffix != CODED_SUFFIX:
        return path, None
    graph = path.with_suffix(".onnx")
    if not graph.exists():
        decoded(path, graph)
    return graph, path


def decoded(path: Path, new_path: Path) -> Path:
    """Write the ONNX file that a coded file stands for to `new_path`, and return that.

    Raises:
        ModelError: it cannot be decoded, or the new file not be written.
    """
    content = decode(path)
    try:
        new_path.write_bytes(content)
    except OSError as error:
        raise ModelError(f"{new_path} cannot be written ({error.strerror}).") from error
    return new_path


def decode(path: Path) -> bytearray:
    """Return the ONNX file that a coded file stands for.

    Raises:
        ModelError: it cannot be decoded.
    """
    try:
        return decode_file(path)
    except CodedError as error:
        raise ModelError(str(error)) from error
