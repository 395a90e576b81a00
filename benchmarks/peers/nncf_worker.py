"""Quantize an ONNX file with NNCF's post-training defaults; runs in NNCF's own environment.

Usage: nncf_worker.py MODEL.onnx CALIBRATION.npz OUT.onnx (static|dynamic)
"""

import sys

import nncf
import numpy as np
import onnx


def main() -> None:
    """Quantize and save; NNCF's ONNX back end has no dynamic mode, so both kinds are its static one."""
    source, calibration, target, kind = sys.argv[1:]
    arrays = dict(np.load(calibration))
    samples = len(next(iter(arrays.values())))
    rows = [{name: array[row : row + 1] for name, array in arrays.items()} for row in range(samples)]
    settings = {"model_type": nncf.ModelType.TRANSFORMER} if kind == "dynamic" else {}
    quantized = nncf.quantize(onnx.load(source), nncf.Dataset(rows), subset_size=samples, **settings)
    onnx.save(quantized, target)


main()
