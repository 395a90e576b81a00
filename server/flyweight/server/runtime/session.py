"""A model in onnxruntime: built from a path, run, and what goes wrong in it. Every runtime runs this code.

Whoever holds a session imports this and little else: each worker process pays for the memory of every module.
"""

import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime

# A compiled module without stubs; its exceptions are to be had nowhere else.
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors  # pyright: ignore[reportAttributeAccessIssue]

from flyweight.server.errors import InvalidRequest, LoadFailed, RunFailed
from flyweight.server.runtime.bfloat16 import run_with_values
from flyweight.server.runtime.memory import trim_heap
from flyweight.server.runtime.onnx_types import datatype_of_onnx
from flyweight.server.runtime.seam import Array, SessionSettings, Signature, TensorSpec
from flyweight.server.runtime.session_options import make_options, run_options_of
from flyweight.server.runtime.signature import FREE
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


class Session:
    """A built session; one takes any number of concurrent runs, and releases the interpreter lock in each."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        signature: Signature,
        run_options: onnxruntime.RunOptions | None = None,
    ) -> None:
        self.signature = signature
        self._session = session
        self._run_options = run_options
        self._text_inputs = frozenset(spec.name for spec in signature.inputs if spec.datatype == "BYTES")
        self._has_bfloat16 = any(spec.datatype == "BF16" for spec in (*signature.inputs, *signature.outputs))

    def feed_of(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the inputs as onnxruntime takes them: strings as text.

        Raises:
            InvalidRequest: an element of a string tensor is not UTF-8.
        """
        return {
            name: to_text(name, array) if name in self._text_inputs else array
            for name, array in inputs.items()
        }

    def run(self, names: Sequence[str], feed: Mapping[str, Array]) -> dict[str, Array]:
        """Run the model once; return the named outputs.

        Raises:
            InvalidRequest: the model does not accept the values.
            RunFailed: the model failed on the values.
        """
        try:
            values = self._values(names, feed)
        except ort_errors.InvalidArgument as error:
            raise InvalidRequest(f"The model does not accept the inputs: {_reason(error)}") from error
        except _ORT_ERRORS as error:
            raise self._failure(error, feed) from error
        return {name: _plain(value) for name, value in zip(names, values, strict=True)}

    def _values(self, names: Sequence[str], feed: Mapping[str, Array]) -> Sequence[object]:
        if self._has_bfloat16:
            return run_with_values(self._session, names, feed, self._run_options)
        values: Sequence[object] = self._session.run(names, feed, self._run_options)
        return values

    def _failure(self, error: Exception, feed: Mapping[str, Array]) -> InvalidRequest | RunFailed:
        """Return whose fault it was: the caller's, where the signature left lengths for the caller to choose.

        onnxruntime says the same of a shape that does not fit and of a broken model. A model whose every
        length but the batch is fixed was given what it asked for; its failures are its own.
        """
        if not _leaves_lengths_free(self.signature):
            return RunFailed(f"The model failed on the inputs: {_reason(error)}")
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feed.items())
        return InvalidRequest(f"The model cannot compute with these shapes ({shapes}): {_reason(error)}")


def open_session(model_file: Path, settings: SessionSettings, cores: int, *, is_coded: bool) -> Session:
    """Build a session from a path: from bytes, Python would keep a second copy of the model.

    A coded file (flyweight.protos.coded) is decoded for as long as the session is built.

    Args:
        model_file: external data must lie in the same folder.
        settings: the manifest's or the operator's.
        cores: a session never has more threads.
        is_coded: the file is a coded one.

    Raises:
        LoadFailed: the file is not a model that can be served; nothing is left behind.
    """
    options = make_options(settings, cores, str(model_file))
    with _plain_file(model_file, is_coded=is_coded) as plain:
        try:
            session = onnxruntime.InferenceSession(
                str(plain), sess_options=options, providers=["CPUExecutionProvider"]
            )
        except _ORT_ERRORS as error:
            trim_heap()
            reason = _reason(error).replace(str(plain), str(model_file))
            raise LoadFailed(f"{model_file} cannot be loaded: {reason}") from error
    # What building left behind is as large as the model; untrimmed, the first run takes holes of it for good.
    trim_heap()
    return Session(session, _signature(session, model_file), run_options_of(settings))


def _plain_file(model_file: Path, *, is_coded: bool) -> AbstractContextManager[Path]:
    if not is_coded:
        return nullcontext(model_file)
    # Not at the top: the decoder, and the protobuf library it brings, are 5 MB in each process.
    from flyweight.server.runtime.coded import as_plain_file

    return as_plain_file(model_file)


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
    inputs = (*required, *optional)
    _refuse_text_beside_bfloat16(inputs, outputs, model_file)
    return Signature(inputs, tuple(outputs))


def _refuse_text_beside_bfloat16(
    inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], model_file: Path
) -> None:
    # bfloat16 goes in and out as onnxruntime's values, which its binding makes of everything but text.
    texts = [spec.name for spec in inputs if spec.datatype == "BYTES"]
    if texts and any(spec.datatype == "BF16" for spec in (*inputs, *outputs)):
        raise LoadFailed(
            f"{model_file} takes text in {texts[0]!r} and has tensors of bfloat16, which onnxruntime's "
            "binding does not take together; give it FP32 tensors and casts inside."
        )


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
