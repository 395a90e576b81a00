"""How much memory a variant needs: what a fresh process grows by when it loads and runs only this one.

Two processes could be compared instead, one with the model and one without. But the proportional set size
of onnxruntime's code depends on who else runs it at that moment, which differed by 3 MB between two looks;
within one process it cancels out, and repeated measurements were within 0.2 MB of each other.
"""

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from flyweight.compressor.data import write_arrays
from flyweight.compressor.errors import ModelError
from flyweight.compressor.sessions import SessionSettings

Array = NDArray[Any]

_PROBE: Final = "flyweight.compressor.evaluate.memory_probe"
# Loading a model of gigabytes from a slow disk takes minutes; longer than this it hangs.
_LONGEST_SECONDS: Final = 600.0


class MemoryMeter:
    """Measures models in processes of its own, one at a time, each ended before `growth_bytes` returns."""

    def __init__(self, folder: Path, settings: SessionSettings) -> None:
        self._folder = folder
        self._settings = settings
        onnx.save_model(_empty_model(), folder / "empty.onnx")

    def growth_bytes(self, model: Path, feed: Mapping[str, Array]) -> int:
        """Return the proportional set size that loading and running `model` once adds, at least 0.

        Raises:
            ModelError: the process did not end as it should.
        """
        npz = self._folder / "feed.npz"
        plain = {name: array.astype(str) if array.dtype == object else array for name, array in feed.items()}
        write_arrays(npz, plain)
        order = {
            "empty": str(self._folder / "empty.onnx"),
            "model": str(model),
            "feed": str(npz),
            "threads": self._settings.threads,
            "config": dict(self._settings.config),
        }
        try:
            ended = subprocess.run(  # noqa: S603  # this interpreter and our own module
                [sys.executable, "-m", _PROBE],
                input=json.dumps(order),
                capture_output=True,
                text=True,
                check=True,
                timeout=_LONGEST_SECONDS,
            )
            return max(0, int(json.loads(ended.stdout)["pss"]))
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            raise ModelError(f"The memory of {model} could not be measured: {_death(error)}.") from error


def _death(error: Exception) -> str:
    """Return how a process ended that should have measured a model."""
    match error:
        case subprocess.TimeoutExpired():
            return f"loading and running it took longer than {_LONGEST_SECONDS:g} seconds"
        case subprocess.CalledProcessError(returncode=code) if code == -signal.SIGKILL:
            return "the process that loaded it was killed, most likely for want of memory; free some"
        case subprocess.CalledProcessError(returncode=code) if code < 0:
            return (
                f"the process that loaded it died of {signal.strsignal(-code) or 'a signal'} (signal {-code})"
            )
        case subprocess.CalledProcessError(returncode=code, stderr=said):
            lines = str(said).strip().splitlines()
            return f"the process that loaded it ended with exit code {code}" + (
                f" ({lines[-1].strip()[:200].rstrip('.')})" if lines else ""
            )
        case OSError():
            return f"no process could be started ({error.strerror})"
        case _:
            return f"the process that loaded it did not answer with a number ({type(error).__name__})"


def _empty_model() -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "empty", [x], [y])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
