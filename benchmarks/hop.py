r"""What the hop to a worker process costs: the inline and the process runtime in turns, in one run.

    python benchmarks/hop.py [--rounds 15] [--seconds 0.5]

Per model: the median time of a run and the processor time it takes, of the server's process and the worker's
together, with one caller; and runs a second with as many callers as there are cores, and with twice as many.
Figures are medians over the rounds. The processor time is the scheduler's own, in nanoseconds.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from flyweight.server.runtime.cores import available_cores
from flyweight.server.runtime.inline import InlineFactory
from flyweight.server.runtime.process.factory import ProcessFactory
from flyweight.server.runtime.process.runtime import ProcessRuntime
from flyweight.server.runtime.seam import Array, Runtime, SessionSettings

_WARM_UP_RUNS: Final = 30
# include/linux/posix-timers.h
_CPUCLOCK_SCHED: Final = 2
_OPSET: Final = 18
_IR_VERSION: Final = 10


@dataclass(slots=True)
class Case:
    """A model, its input, and what was measured of it by runtime."""

    name: str
    x: Array
    runtimes: dict[str, Runtime]
    latencies: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    rates: dict[tuple[str, int], list[float]] = field(default_factory=dict)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each measurement")
    given = parser.parse_args()
    cores = available_cores()
    callers = (1, cores, 2 * cores) if cores > 1 else (1, 2)
    with tempfile.TemporaryDirectory() as folder:
        cases = [case(name, save, x, Path(folder), cores) for name, save, x in models()]
    try:
        for _ in range(given.rounds):
            for each in cases:
                for kind, runtime in each.runtimes.items():
                    measure(each, kind, runtime, given.seconds, callers)
        show(cases, callers, cores)
    finally:
        for each in cases:
            for runtime in each.runtimes.values():
                runtime.close()


def case(name: str, save: Callable[[Path], None], x: Array, folder: Path, cores: int) -> Case:
    """Load a model into both runtimes."""
    path = folder / name / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    save(path)
    factories = {"inline": InlineFactory(cores), "process": ProcessFactory(cores)}
    loaded = {kind: factory.load(path, SessionSettings()) for kind, factory in factories.items()}
    return Case(name, x, dict(loaded))


def measure(each: Case, kind: str, runtime: Runtime, seconds: float, callers: tuple[int, ...]) -> None:
    """Add one round's figures."""
    for _ in range(_WARM_UP_RUNS):
        runtime.run({"x": each.x})
    processes = [os.getpid()]
    if isinstance(runtime, ProcessRuntime) and runtime.pid is not None:
        processes.append(runtime.pid)
    times: list[float] = []
    cpu = sum(map(cpu_seconds, processes))
    ends = time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends:
        runtime.run({"x": each.x})
        times.append(time.perf_counter() - began)
    cpu = sum(map(cpu_seconds, processes)) - cpu
    each.latencies.setdefault(kind, []).append(median(times))
    each.cpu.setdefault(kind, []).append(cpu / len(times))
    for count in callers:
        each.rates.setdefault((kind, count), []).append(rate(runtime, each.x, seconds, count))


def rate(runtime: Runtime, x: Array, seconds: float, callers: int) -> float:
    """Return runs a second with so many threads that call."""
    runs = [0] * callers
    start = threading.Barrier(callers + 1)
    ends = 0.0

    def call(number: int) -> None:
        start.wait()
        while time.perf_counter() < ends:
            runtime.run({"x": x})
            runs[number] += 1

    threads = [threading.Thread(target=call, args=(number,)) for number in range(callers)]
    for thread in threads:
        thread.start()
    began = time.perf_counter()
    ends = began + seconds
    start.wait()
    for thread in threads:
        thread.join()
    return sum(runs) / (time.perf_counter() - began)


def cpu_seconds(pid: int) -> float:
    """Return a process's processor time; its clock's number is made of its own (clock_getcpuclockid(3))."""
    return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)


def show(cases: list[Case], callers: tuple[int, ...], cores: int) -> None:
    """Print one table."""
    print(
        f"{cores} cores; microseconds a run with one caller (median, and processor time), and runs a second"
    )
    heads = "".join(f"{f'{count} callers' if count > 1 else '1 caller':>12}" for count in callers)
    print(f"{'model':<10}{'bytes in':>10}  {'runtime':<8}{'median us':>11}{'CPU us':>9}{heads}")
    for each in cases:
        for kind in each.runtimes:
            rates = "".join(f"{median(each.rates[kind, count]):>12,.0f}" for count in callers)
            latency, cpu = median(each.latencies[kind]) * 1e6, median(each.cpu[kind]) * 1e6
            print(f"{each.name:<10}{each.x.nbytes:>10,}  {kind:<8}{latency:>11.1f}{cpu:>9.1f}{rates}")
        hop = [median(of["process"]) - median(of["inline"]) for of in (each.latencies, each.cpu)]
        ratios = "".join(
            f"{median(each.rates['process', count]) / median(each.rates['inline', count]):>11.2f}x"
            for count in callers
        )
        print(f"{'':<20}  {'hop':<8}{hop[0] * 1e6:>11.1f}{hop[1] * 1e6:>9.1f}{ratios}")


def models() -> list[tuple[str, Callable[[Path], None], Array]]:
    """Return the models: two small ones, and one that does nothing but move data."""
    random = np.random.default_rng(0)
    return [
        ("mlp", save_mlp, random.standard_normal((1, 784), np.float32)),
        ("convnet", save_convnet, random.standard_normal((1, 3, 32, 32), np.float32)),
        ("1.5 MB", save_scaling, random.standard_normal((1, 3, 362, 362), np.float32)),
    ]


def save_mlp(path: Path) -> None:
    """Write LeNet-300-100."""
    nodes, weights, last = [], [], "x"
    for number, (rows, columns) in enumerate([(784, 300), (300, 100), (100, 10)]):
        name = "y" if number == 2 else f"h{number}"
        weights += [matrix(f"w{number}", (rows, columns)), matrix(f"b{number}", (columns,))]
        nodes.append(helper.make_node("Gemm", [last, f"w{number}", f"b{number}"], [f"g{number}"]))
        nodes.append(helper.make_node("Relu", [f"g{number}"], [name]))
        last = name
    save(path, nodes, weights, ["n", 784], ["n", 10])


def save_convnet(path: Path) -> None:
    """Write a convnet of three layers on 32 x 32 pixels, about 0.4 ms a run."""
    nodes, weights, last = [], [], "x"
    for number, (inputs, outputs) in enumerate([(3, 64), (64, 160), (160, 160)]):
        weights.append(matrix(f"w{number}", (outputs, inputs, 3, 3)))
        nodes += [
            helper.make_node("Conv", [last, f"w{number}"], [f"c{number}"], pads=[1] * 4),
            helper.make_node("Relu", [f"c{number}"], [f"r{number}"]),
            helper.make_node("MaxPool", [f"r{number}"], [f"p{number}"], kernel_shape=[2, 2], strides=[2, 2]),
        ]
        last = f"p{number}"
    weights.append(matrix("w", (2560, 10)))
    nodes += [helper.make_node("Flatten", [last], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    save(path, nodes, weights, ["n", 3, 32, 32], ["n", 10])


def save_scaling(path: Path) -> None:
    """Write y = w x: the work of moving the data and next to nothing else."""
    shape = ["n", 3, 362, 362]
    save(path, [helper.make_node("Mul", ["x", "w"], ["y"])], [matrix("w", (1,))], shape, shape)


def matrix(name: str, shape: tuple[int, ...]) -> onnx.TensorProto:
    """Return random weights, the same in every run."""
    values = np.random.default_rng(1).standard_normal(shape, np.float32) / np.float32(np.sqrt(shape[0]))
    return numpy_helper.from_array(values, name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: list[onnx.TensorProto],
    x: list[int | str],
    y: list[int | str],
) -> None:
    """Write a model with one input and one output."""
    graph = helper.make_graph(
        nodes,
        "hop",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    path.write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
