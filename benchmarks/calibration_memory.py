"""Peak memory of calibration on 100 and on 10,000 samples, each in a process of its own.

Ranges are learned from images of 3 x 64 x 64 that lie in an .npz file (10,000 are 491 MB), through a small
convolutional network. Printed is the peak of the process while it calibrates: pages of its own (anonymous),
which is what memory that grew with the samples would show in, and all resident pages, those of the file
among them, which the kernel may take back. What calibration added is printed beside them; a process that
has read more data before may have freed memory to reuse, and then adds less.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.compressor.context import Context
from flyweight.compressor.data import load_data
from flyweight.compressor.passes.quantize.calibration import METHODS, Method, observe_ranges

SHAPE = (3, 64, 64)
CHANNELS = 16
FEW, MANY = 100, 10_000


def main() -> None:
    """Measure every method with few and with many samples, and print the ratios."""
    arguments = parse()
    if arguments.child:
        print(*measure(arguments.child, arguments.method))
        return
    many = 2000 if arguments.quick else MANY
    print(f"{'':10s} own pages, MB        all resident, MB     added by calibration, MB")
    print(f"{'':10s} {FEW:5d} {many:6d} ratio   {FEW:5d} {many:6d} ratio   {FEW:5d} {many:6d}")
    with tempfile.TemporaryDirectory() as folder:
        files = [write(Path(folder), samples) for samples in (FEW, many)]
        for method in METHODS[::2] if arguments.quick else METHODS:
            few, lot = (child(file, method) for file in files)
            own, every = (f"{few[i]:5.0f} {lot[i]:6.0f} {lot[i] / few[i]:5.2f}" for i in range(2))
            print(f"{method:10s} {own}   {every}   {few[2]:5.0f} {lot[2]:6.0f}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2,000 samples and two methods")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--method", default="minmax", help=argparse.SUPPRESS)
    return parser.parse_args()


def write(folder: Path, samples: int) -> Path:
    """Write seeded samples to an .npz file, a hundred at a time."""
    random = np.random.default_rng(0)
    path = folder / f"{samples}.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("image.npy", "w", force_zip64=True) as file:
        head = {"descr": "<f4", "fortran_order": False, "shape": (samples, *SHAPE)}
        np.lib.format.write_array_header_1_0(file, head)
        for _ in range(samples // 100):
            file.write(random.standard_normal((100, *SHAPE), dtype=np.float32).tobytes())
    return path


def child(data: Path, method: Method) -> list[float]:
    """Return in MB what a fresh process measures."""
    command = [sys.executable, __file__, "--child", str(data), "--method", method]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(number) / 1e6 for number in told.split()]


def measure(file: Path, method: Method) -> tuple[int, int, int]:
    """Return this process's peak in bytes: pages of its own, all, and of its own what calibration added."""
    data, model = load_data(file), network()
    names = [value for node in model.graph.node for value in node.output]
    with tempfile.TemporaryDirectory() as folder:
        context = Context(workspace=Path(folder), calibration=data)
        before, peak = resident()[0], Peak()
        with peak:
            observe_ranges(model, names, method, 99.99, context)
    return peak.own, peak.all, peak.own - before


class Peak:
    """The largest resident memory while a block runs, sampled by a thread of its own."""

    def __init__(self) -> None:
        self.own, self.all = resident()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> None:
        """Start to watch."""
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.002):
            own, everything = resident()
            self.own, self.all = max(self.own, own), max(self.all, everything)


def resident() -> tuple[int, int]:
    """Return this process's resident bytes: anonymous, and all."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["RssAnon"].split()[0]) * 1024, int(fields["VmRSS"].split()[0]) * 1024


def network() -> onnx.ModelProto:
    """Return three convolutions whose every activation is observed."""
    random = np.random.default_rng(0)
    nodes, weights, name, channels = [], [], "image", SHAPE[0]
    for layer in range(3):
        values = random.standard_normal((CHANNELS, channels, 3, 3)).astype(np.float32) / 10
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        nodes.append(helper.make_node("Conv", [name, f"w{layer}"], [f"c{layer}"], strides=[2, 2]))
        nodes.append(helper.make_node("Relu", [f"c{layer}"], [f"r{layer}"]))
        name, channels = f"r{layer}", CHANNELS
    graph = helper.make_graph(
        nodes,
        "observed",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", *SHAPE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        weights,
    )
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])


if __name__ == "__main__":
    main()
