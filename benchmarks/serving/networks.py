"""The five networks that are served, from one that costs less than its request to a thousand times that.

mlp: 784-300-100-10, about 20 us a run. pool: means of 1.5 MiB, 32 KiB of them; what it costs is the way of
the payload. convnet: eight layers on 28 x 28, about 0.4 ms. resnet18: ResNet-18's
shape at 224 x 224, about 34 ms. resnet18-int8: the same, quantized (QDQ, S8 weights, per channel), about
10 ms. Weights are seeded: what is measured does not depend on them.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks import memory_models
from benchmarks.memory_models import Builder

MODEL_FILE: Final = "model.onnx"


@dataclass(frozen=True, slots=True)
class Network:
    """A network by name, what tables call it, and the shape of one row of its input."""

    name: str
    title: str
    shape: tuple[int, ...]

    def sample(self) -> NDArray[np.float32]:
        """Return one row, always the same."""
        return np.random.default_rng(1).standard_normal((1, *self.shape), dtype=np.float32)


NETWORKS: Final = {
    network.name: network
    for network in (
        Network("mlp", "MLP 784-300-100-10", (784,)),
        Network("pool", "mean pool, 1.5 MiB in, 32 KiB out", (8, 192, 256)),
        Network("convnet", "convnet of 8 layers, 28 x 28", (1, 28, 28)),
        Network("resnet18", "ResNet-18 class, 224 x 224, fp32", (3, 224, 224)),
        Network("resnet18-int8", "ResNet-18 class, 224 x 224, int8", (3, 224, 224)),
    )
}
_MADE_ELSEWHERE: Final = {"mlp": "mlp", "resnet18": "convnet", "resnet18-int8": "convnet-int8"}


def write(network: Network, repository: Path, variant: str = "1") -> Path:
    """Return the network's file in a repository, made there if it is not there yet."""
    path = repository / network.name / variant / MODEL_FILE
    if not path.exists():
        made = repository / f".{network.name}-{os.getpid()}" / variant / MODEL_FILE
        if network.name in _MADE_HERE:
            _MADE_HERE[network.name](made, network.shape)
        else:
            memory_models.write(_MADE_ELSEWHERE[network.name], made)
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        made.parent.rename(path.parent)
        made.parent.parent.rmdir()
    return path


def session_of(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session as all servers have it: one thread, the CPU's kernels, loaded by path."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def answer_of(network: Network, path: Path) -> NDArray[np.float32]:
    """Return what the network answers for its sample."""
    return np.asarray(session_of(path).run(None, {"x": network.sample()})[0], np.float32)


def _pool(path: Path, shape: tuple[int, ...]) -> Path:
    build = Builder()
    means = build.node("AveragePool", "x", kernel_shape=[6, 8], strides=[6, 8])
    build.node("Flatten", means, output="y")
    return build.save(path, shape, 8 * 32 * 32)


def _convnet(path: Path, shape: tuple[int, ...]) -> Path:
    build = Builder()
    x, before = "x", 1
    for after, stride in ((32, 1), (32, 1), (64, 2), *[(64, 1)] * 4, (64, 2)):
        x = build.node("Relu", build.conv(x, (before, after), 3, stride))
        before = after
    x = build.node("Flatten", build.node("GlobalAveragePool", x))
    build.gemm(x, before, 10, output="y")
    return build.save(path, shape, 10)


_MADE_HERE: Final = {"pool": _pool, "convnet": _convnet}
