"""Quantize an ONNX file with onnxruntime's own tools and their defaults, after their own preparation.

Usage: ort_worker.py MODEL.onnx CALIBRATION.npz OUT.onnx (static|dynamic)
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process


class Rows(CalibrationDataReader):
    """One sample at a time."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        samples = len(next(iter(arrays.values())))
        self._rows = iter(
            [{name: array[row : row + 1] for name, array in arrays.items()} for row in range(samples)]
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next sample; None after the last."""
        return next(self._rows, None)


def main() -> None:
    """Quantize and save."""
    source, calibration, target, kind = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(source, prepared, skip_symbolic_shape=kind == "dynamic")
        if kind == "static":
            quantize_static(prepared, target, Rows(dict(np.load(calibration))))
        else:
            quantize_dynamic(prepared, target)


main()
