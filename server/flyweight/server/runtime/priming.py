"""Letting onnxruntime set itself up before anything is measured."""

import threading
from typing import Final

import numpy as np
import onnxruntime

from flyweight.server.runtime.seam import SessionSettings
from flyweight.server.runtime.session_options import make_options

# y = Identity(x), x and y of FP32 [1], as an ONNX ModelProto (IR version 8, operator set 17).
EMPTY_MODEL: Final = bytes.fromhex(
    "08083a3b0a100a017812017922084964656e746974791205656d7074795a0f0a0178120a0a08080112040a020801620f"
    "0a0179120a0a08080112040a02080142040a001011"
)

_once = threading.Lock()
_primed = False


def prime() -> None:
    """Build and run a session of one operator, once per process; it takes about 4 ms.

    The first session of a process pays for onnxruntime itself: schemas, kernels, code pages, 7 to 11 MB. It
    should be no variant's, or the first to be loaded looks larger than it is.
    """
    global _primed  # noqa: PLW0603  # what it tells of is the process's too
    with _once:
        if _primed:
            return
        options = make_options(SessionSettings(), 1, "the empty model")
        session = onnxruntime.InferenceSession(EMPTY_MODEL, options, ["CPUExecutionProvider"])
        session.run(None, {"x": np.zeros(1, np.float32)})
        _primed = True
