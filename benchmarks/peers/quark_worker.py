"""Quantize an ONNX file with AMD Quark; runs in Quark's own environment.

Usage: quark_worker.py MODEL.onnx CALIBRATION.npz OUT.onnx (static|dynamic)
"""

import sys

import numpy as np
from onnxruntime.quantization.calibrate import CalibrationDataReader
from quark.onnx import ModelQuantizer
from quark.onnx.quantization.config import Config, get_default_config


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
    """Quantize and save, with the configuration Quark names for this kind on a CPU."""
    source, calibration, target, kind = sys.argv[1:]
    # U8S8_AAWS: unsigned asymmetric activations, signed symmetric weights: what x86 processors multiply.
    name = "U8S8_AAWS" if kind == "static" else "UINT8_DYNAMIC_QUANT"
    quantizer = ModelQuantizer(Config(global_quant_config=get_default_config(name)))
    quantizer.quantize_model(source, target, Rows(dict(np.load(calibration))) if kind == "static" else None)


main()
