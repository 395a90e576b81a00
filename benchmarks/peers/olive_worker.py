"""Quantize an ONNX file with Olive's pass; runs in Olive's own environment.

Usage: olive_worker.py MODEL.onnx CALIBRATION.npz OUT.onnx (static|dynamic)
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from olive import run

_DATA = """
import numpy as np
from olive.data.registry import Registry


class Samples:
    def __init__(self, path):
        self.arrays = dict(np.load(path))

    def __len__(self):
        return len(next(iter(self.arrays.values())))

    def __getitem__(self, row):
        return {name: array[row] for name, array in self.arrays.items()}, 0


@Registry.register_dataset()
def calibration_samples(path, **_):
    return Samples(path)
"""


def main() -> None:
    """Quantize and save."""
    source, calibration, target, kind = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "samples.py"
        script.write_text(_DATA)
        step: dict[str, object] = {"type": "OnnxDynamicQuantization"}
        if kind == "static":
            step = {"type": "OnnxStaticQuantization", "data_config": "samples"}
        config = {
            "input_model": {"type": "ONNXModel", "model_path": source},
            "data_configs": [
                {
                    "name": "samples",
                    "user_script": str(script),
                    "load_dataset_config": {"type": "calibration_samples", "path": calibration},
                    "dataloader_config": {"batch_size": 1},
                }
            ],
            "passes": {"quantize": step},
            "output_dir": str(Path(folder) / "out"),
            "cache_dir": str(Path(folder) / "cache"),
        }
        (Path(folder) / "config.json").write_text(json.dumps(config))
        run(str(Path(folder) / "config.json"))
        found = sorted((Path(folder) / "out").rglob("*.onnx"))
        shutil.copyfile(found[0], target)


main()
