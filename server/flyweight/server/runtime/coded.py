"""Coded model files (flyweight.protos.coded), decoded for as long as a session is built from them."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flyweight.protos.coded import CodedError, decode_file
from flyweight.protos.variant.names import CODED_SUFFIX
from flyweight.server.errors import LoadFailed
from flyweight.server.runtime.memory import trim_heap


@contextmanager
def as_plain_file(model_file: Path) -> Iterator[Path]:
    """Yield the path of the ONNX file that `model_file` is, or decodes to.

    onnxruntime is given a path and not bytes, of which Python would keep a second copy; and the repository
    may be read-only. So what is decoded lies in a file in memory (memfd_create(2)) that has no name and is
    gone, with its memory, when the session is built; where the system has none, in a temporary file.

    Raises:
        LoadFailed: the file cannot be decoded, or there is no room for what it decodes to.
    """
    if model_file.suffix != CODED_SUFFIX:
        yield model_file
        return
    with _open(model_file) as (handle, path):
        _decode_into(handle, model_file)
        # The decoder's own buffers are as large as the model.
        trim_heap()
        yield path


@contextmanager
def _open(model_file: Path) -> Iterator[tuple[int, Path]]:
    """Yield a new file's handle, and a path that opens it in this process."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create(model_file.name, os.MFD_CLOEXEC)
        try:
            yield handle, Path(f"/proc/self/fd/{handle}")
        finally:
            os.close(handle)
        return
    with tempfile.NamedTemporaryFile(suffix=".onnx") as file:
        yield file.fileno(), Path(file.name)


def _decode_into(handle: int, model_file: Path) -> None:
    try:
        content = memoryview(decode_file(model_file))
    except CodedError as error:
        raise LoadFailed(str(error)) from error
    except MemoryError as error:
        raise LoadFailed(
            f"{model_file} decodes to more than there is memory for; give the server more."
        ) from error
    try:
        written = 0
        while written < len(content):
            written += os.write(handle, content[written:])
    except OSError as error:
        raise LoadFailed(f"{model_file} cannot be decoded ({error.strerror}); make room for it.") from error
