"""The inline runtime: an onnxruntime session in this process."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Final

import numpy as np
import onnxruntime

# A compiled module without stubs; its exceptions are to be had nowhere else.
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors  # pyright: ignore[reportAttributeAccessIssue]

from flyweight.server.errors import InvalidRequest, LoadFailed, RunFailed
from flyweight.server.runtime.coded import as_plain_file
from flyweight.server.runtime.cores import available_cores
from flyweight.server.runtime.memory import read_pss_bytes, trim_heap
from flyweight.server.runtime.onnx_types import datatype_of_onnx
from flyweight.server.runtime.seam import Answer, Array, MemoryReport, SessionSettings, Signature, TensorSpec
from flyweight.server.runtime.session_options import make_options
from flyweight.server.runtime.signature import FREE
from flyweight.server.runtime.slots import RunSlots
from flyweight.server.runtime.strings import to_bytes, to_text

# Everything that onnxruntime raises: its errors have no common base, and its binding turns C++ exceptions
# that are not its own into RuntimeError, and its own checks of names are ValueError.
_ORT_ERRORS: Final[tuple[type[Exception], ...]] = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.ModelLoaded,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)
# Where in onnxruntime's source a check stands, and the C++ of the check: nothing to a caller.
_SOURCE: Final = re.compile(r"\S*/onnxruntime/\S+\.(?:h|cc):\d+ (?:.*? was false\. ?)?|\b\w+\.(?:h|cc):\d+ ")
_PREFIX: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")


class InlineFactory:
    """Loads models into this process. All of its runtimes share the turns of one set of cores.

    Args:
        cores: how many runs go on at once and how many threads a session has at most; None reads the cgroup.
    """

    def __init__(self, cores: int | None = None) -> None:
        self._cores = cores or available_cores()
        self._slots = RunSlots(self._cores)

    def load(self, model_file: Path, settings: SessionSettings) -> "InlineRuntime":
        """Build a session from a path: from bytes, Python would keep a second copy of the model.

        A coded file (flyweight.protos.coded) is decoded for as long as the session is built.

        Raises:
            LoadFailed: the file is missing or not a model that can be served; nothing is left behind.
        """
        if not model_file.is_file():
            raise LoadFailed(
                f"{model_file} is not there, or is not a file; a variant holds its model in one."
            )
        options = make_options(settings, self._cores, str(model_file))
        file_bytes = _size_bytes(model_file.parent)
        before = read_pss_bytes()
        with as_plain_file(model_file) as plain:
            try:
                session = onnxruntime.InferenceSession(
                    str(plain), sess_options=options, providers=["CPUExecutionProvider"]
                )
            except _ORT_ERRORS as error:
                trim_heap()
                reason = _reason(error).replace(str(plain), str(model_file))
                raise LoadFailed(f"{model_file} cannot be loaded: {reason}") from error
        signature = _signature(session, model_file)
        memory = MemoryReport(file_bytes, max(0, read_pss_bytes() - before))
        return InlineRuntime(session, signature, memory, self._slots)


class InlineRuntime:
    """A session; one takes any number of concurrent runs, and releases the interpreter lock in each."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        signature: Signature,
        memory: MemoryReport,
        slots: RunSlots,
    ) -> None:
        self._session: onnxruntime.InferenceSession | None = session
        self._signature = signature
        self._memory = memory
        self._slots = slots
        self._text_inputs = frozenset(spec.name for spec in signature.inputs if spec.datatype == "BYTES")
        self._all_outputs = [spec.name for spec in signature.outputs]

    @property
    def signature(self) -> Signature:
        """Return the session's inputs (initializers that may be overridden as optional ones) and outputs."""
        return self._signature

    @property
    def memory(self) -> MemoryReport:
        """Return the bytes of the model's folder, and the growth of this process's PSS while it loaded."""
        return self._memory

    def run(
        self,
        inputs: Mapping[str, Array],
        outputs: Sequence[str] | None = None,
        deadline_monotonic: float | None = None,
    ) -> Answer:
        """Run the session when a turn is free; see `Runtime.run`."""
        session = self._session
        if session is None:
            raise RunFailed("The model was unloaded.")
        feed = {
            name: to_text(name, array) if name in self._text_inputs else array
            for name, array in inputs.items()
        }
        names = list(outputs or self._all_outputs)
        with self._slots.hold(deadline_monotonic) as queue_seconds:
            began = monotonic()
            try:
                values = session.run(names, feed)
            except ort_errors.InvalidArgument as error:
                raise InvalidRequest(f"The model does not accept the inputs: {_reason(error)}") from error
            except _ORT_ERRORS as error:
                raise self._failure(error, feed) from error
            run_seconds = monotonic() - began
        answers = {name: _plain(value) for name, value in zip(names, values, strict=True)}
        return Answer(answers, queue_seconds, run_seconds)

    def _failure(self, error: Exception, feed: Mapping[str, Array]) -> InvalidRequest | RunFailed:
        """Return whose fault it was: the caller's, where the signature left lengths for the caller to choose.

        onnxruntime says the same of a shape that does not fit and of a broken model. A model whose every
        length but the batch is fixed was given what it asked for; its failures are its own.
        """
        if not _leaves_lengths_free(self._signature):
            return RunFailed(f"The model failed on the inputs: {_reason(error)}")
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        return InvalidRequest(f"The model cannot compute with these shapes ({shapes}): {_reason(error)}")

    def close(self) -> None:
        """Drop the session and give its memory back to the kernel."""
        self._session = None
        trim_heap()


def _plain(value: object) -> Array:
    # Sequences and maps were refused when the model was loaded.
    assert isinstance(value, np.ndarray)
    return to_bytes(value) if value.dtype.hasobject else value


def _signature(session: onnxruntime.InferenceSession, model_file: Path) -> Signature:
    required = [_spec(node, "input", model_file) for node in session.get_inputs()]
    optional = [
        _spec(node, "input", model_file, optional=True) for node in session.get_overridable_initializers()
    ]
    outputs = [_spec(node, "output", model_file) for node in session.get_outputs()]
    return Signature((*required, *optional), tuple(outputs))


def _spec(node: onnxruntime.NodeArg, kind: str, model_file: Path, *, optional: bool = False) -> TensorSpec:
    datatype = datatype_of_onnx(node.type, f"The {kind} {node.name!r} of {model_file}")
    shape = tuple(length if isinstance(length, int) else FREE for length in node.shape)
    return TensorSpec(node.name, datatype, shape, optional=optional)


def _leaves_lengths_free(signature: Signature) -> bool:
    """Tell whether callers choose a length besides that of one common first axis."""
    shapes = [spec.shape for spec in signature.inputs]
    return len(shapes) > 1 or any(FREE in shape[1:] for shape in shapes)


def _reason(error: Exception) -> str:
    """Return onnxruntime's message in one line, without prefix and source, ending with a full stop."""
    text = _PREFIX.sub("", " ".join(str(error).split()))
    return _SOURCE.sub("", text).strip().rstrip(".") + "."


def _size_bytes(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError as error:
        raise LoadFailed(f"{folder} cannot be read ({error.strerror}); check its permissions.") from error
