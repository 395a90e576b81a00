"""Measure how soon a model's file is served: from the moment it has its name until the server calls it READY.

    python benchmarks/file_to_serving.py [--megabytes 50] [--rounds 7]

A real `flyweight serve` watches a repository while models of that size come to it in three ways: as a variant
that is published (a whole folder with a manifest, renamed) beside one that is served, as a new model
published likewise, and as a plain version folder that is copied there and must first be seen to have come to
rest. Each is measured with the kernel telling of changes, and with polling alone. The bare time is that of a
process which does nothing but build the session for the same file, with the settings that the server uses; it
is measured in the same round. What is over it is digests, golden samples, and the time until the change was
seen.
"""

import argparse
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from flyweight.client import Client, ClientError
from flyweight.protos.manifest.v1.manifest_pb2 import Golden, SessionSettings, VariantManifest
from flyweight.protos.variant import GOLDEN_FILE, GoldenSamples, publish_variant, write_golden

# Four square matrices: the bytes of a small image classifier, in the operator that is built fastest.
LAYERS = 4
PATIENCE_SECONDS = 60.0
# How exactly READY is seen; asking costs the server some tenths of a millisecond each time.
LOOK_SECONDS = 0.005

BARE = """
import sys, time, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
began = time.perf_counter()
onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
print(time.perf_counter() - began)
"""


@dataclass(frozen=True)
class Row:
    """One way in which a model arrives, in seconds: the medians over the rounds, and the worst."""

    way: str
    watched: str
    total: float
    bare: float
    over: float
    worst_over: float


def write_model(path: Path, megabytes: float, seed: int) -> None:
    """Write y = x W1 W2 W3 W4 with so many megabytes of weights."""
    width = int((megabytes * 1e6 / 4 / LAYERS) ** 0.5)
    generator = np.random.default_rng(seed)
    scale = np.float32(1 / width**0.5)
    weights = [
        numpy_helper.from_array(generator.standard_normal((width, width), np.float32) * scale, f"w{number}")
        for number in range(LAYERS)
    ]
    names = ["x", *(f"h{number}" for number in range(1, LAYERS)), "y"]
    nodes = [
        helper.make_node("MatMul", [names[number], f"w{number}"], [names[number + 1]])
        for number in range(LAYERS)
    ]
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", width]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "large", tensors[:1], tensors[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)


def answers_of(path: Path) -> GoldenSamples:
    """Return one row and its answer by onnxruntime, in a session that is gone afterwards."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = np.full((1, session.get_inputs()[0].shape[1]), 0.5, np.float32)
    return GoldenSamples({"x": x}, {"y": session.run(None, {"x": x})[0]})


def bare_seconds(path: Path) -> float:
    """Return how long a process of its own needs to build the session."""
    done = subprocess.run([sys.executable, "-c", BARE, path], check=True, capture_output=True, text=True)
    return float(done.stdout)


@contextmanager
def served(repository: Path, *options: str) -> Iterator[str]:
    """Run `flyweight serve` on a repository, and give its address."""
    command = [Path(sys.executable).with_name("flyweight"), "serve", repository]
    ports = ["--port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        [*command, *ports, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], PATIENCE_SECONDS)[0]:
            raise SystemExit("the server did not start")
        yield process.stdout.readline().split("grpc=")[1].split()[0]
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)


def await_ready(client: Client, model: str, variant: str) -> None:
    """Return when the server says that the variant is ready."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < ends:
        try:
            if client.is_model_ready(model, variant):
                return
        except ClientError:
            # A model that is known and not ready yet.
            pass
        time.sleep(LOOK_SECONDS)
    raise SystemExit(f"{model}/{variant} was not ready within {PATIENCE_SECONDS:g} s")


class Ways:
    """The ways in which a model arrives; each returns model, variant, and the moment it had its name."""

    def __init__(self, source: Path, repository: Path, golden: GoldenSamples) -> None:
        self._source = source
        self._repository = repository
        self._golden = golden
        # On the same file system, so that a rename is one.
        self._aside = repository.with_name("aside")

    def first(self) -> None:
        """Publish the variant that is served all the time."""
        self._publish("large", "baseline")

    def variant(self, number: int) -> tuple[str, str, float]:
        """Publish a variant beside one that is served."""
        return self._publish("large", f"v{number}")

    def model(self, number: int) -> tuple[str, str, float]:
        """Publish a new model."""
        return self._publish(f"large-{number}", "baseline")

    def plain(self, number: int) -> tuple[str, str, float]:
        """Copy a file into a version folder of a plain Triton repository; the last byte is its moment."""
        folder = self._repository / f"plain-{number}" / "1"
        folder.mkdir(parents=True)
        shutil.copyfile(self._source, folder / "model.onnx")
        return f"plain-{number}", "1", time.monotonic()

    def _publish(self, model: str, variant: str) -> tuple[str, str, float]:
        manifest = VariantManifest(
            model=model,
            variant=variant,
            session=SessionSettings(intra_op_threads=1),
            golden=Golden(file=GOLDEN_FILE, relative_tolerance=1e-3),
        )

        def fill(folder: Path) -> None:
            shutil.copyfile(self._source, folder / "model.onnx")
            write_golden(folder, self._golden)

        published = publish_variant(self._aside, manifest, fill)
        is_new = not (self._repository / model).exists()
        moved, there = (
            (published.parent, self._repository / model)
            if is_new
            else (published, self._repository / model / variant)
        )
        moment = time.monotonic()
        moved.rename(there)
        return model, variant, moment


def measure(
    way: str,
    watched: str,
    arrive: Callable[[int], tuple[str, str, float]],
    args: argparse.Namespace,
    source: Path,
    client: Client,
) -> Row:
    """Let so many models arrive in one way, and return the medians."""
    totals, bares = [], []
    for number in range(args.rounds):
        bares.append(bare_seconds(source))
        model, variant, moment = arrive(number)
        await_ready(client, model, variant)
        totals.append(time.monotonic() - moment)
        # What was served is taken away, so that memory is the same in every round.
        shutil.rmtree(args.repository / model / variant if way == "variant" else args.repository / model)
    overs = [total - bare for total, bare in zip(totals, bares, strict=True)]
    medians = [statistics.median(seconds) for seconds in (totals, bares, overs)]
    return Row(way, watched, *medians, max(overs))


def show(rows: list[Row], args: argparse.Namespace) -> None:
    """Print the table."""
    print(f"{args.megabytes:g} MB of weights, {args.rounds} rounds, medians in seconds; poll every 0.5 s")
    print(f"{'arrives as':<12}{'changes by':<12}{'to READY':>10}{'bare':>8}{'over':>8}{'worst over':>12}")
    for row in rows:
        print(
            f"{row.way:<12}{row.watched:<12}{row.total:>10.3f}{row.bare:>8.3f}{row.over:>8.3f}"
            f"{row.worst_over:>12.3f}"
        )


def main() -> None:
    """Measure every way with and without inotify, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=50.0, help="of weights; 50")
    parser.add_argument("--rounds", type=int, default=7, help="of each way; 7")
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "model.onnx"
        write_model(source, args.megabytes, 1)
        golden = answers_of(source)
        for watched, option in (("inotify", "--watch"), ("polling", "--no-watch")):
            args.repository = Path(temporary) / watched / "repository"
            args.repository.mkdir(parents=True)
            ways = Ways(source, args.repository, golden)
            ways.first()
            with served(args.repository, option) as address, Client(address) as client:
                rows += [
                    measure(name, watched, arrive, args, source, client)
                    for name, arrive in (
                        ("variant", ways.variant),
                        ("model", ways.model),
                        ("plain copy", ways.plain),
                    )
                ]
    show(rows, args)


if __name__ == "__main__":
    main()
