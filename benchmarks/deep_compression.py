"""Deep Compression of its paper's two networks, on Fashion-MNIST: prune, share, encode, serve.

Trains LeNet-300-100 and (Caffe's) LeNet-5 as the baselines, prunes them gradually (`sparsify`, scope lamp)
while they are trained on labels and on what the baseline answers, shares what is left from small codebooks
whose entries are trained, and encodes it. Prints the bytes of every stage on disk, accuracy on the 10,000
test images with 95 % intervals (Wilson), and beside it what the paper reached on MNIST (Han, Mao and Dally
2016, table 1). Last, a real server loads the coded files and has to answer what onnxruntime answers for the
decoded graphs.

The schedules are not chosen on the test images: --choose trains on the first 50,000 training images, judges
on the last 10,000, and does not read the test images; --sparsity tries other shares of zeros there.

Reads the four files of Fashion-MNIST below --data or $FLYWEIGHT_DATA. About five minutes on two cores;
--quick trains a little on a part and shows the way, not the figures.
"""

import argparse
import gzip
import lzma
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn

from flyweight.client import Client
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.intervals import wilson
from flyweight.compressor.evaluate.mcnemar import mcnemar
from flyweight.compressor.evaluate.served import decoded
from flyweight.compressor.model import Model
from flyweight.compressor.passes.distill.losses import TrainingLoss
from flyweight.compressor.passes.export import Export
from flyweight.compressor.passes.prune.scope import Scope
from flyweight.compressor.passes.prune.sparsify import Sparsify
from flyweight.compressor.passes.share.encode import Encode
from flyweight.compressor.passes.share.grouping import Sharing
from flyweight.compressor.passes.share.trained import TrainedShare
from flyweight.compressor.sessions import Session, SessionSettings
from flyweight.compressor.training import TrainingSettings, rows_of, train
from flyweight.protos.coded import decode
from flyweight.protos.manifest.v1.manifest_pb2 import Golden, VariantManifest
from flyweight.protos.variant import GOLDEN_FILE, MODEL_FILE, GoldenSamples, publish_variant, write_golden
from flyweight.protos.variant.names import CODED_FILE

USUAL_FOLDER = "/usr/share/datasets/fashion-mnist"
SERVED_ROWS = 64
BATCH = 128
SHARING_EPOCHS = 3
PATIENCE_SECONDS = 60
CHOOSING_ROWS = 10_000


@dataclass(frozen=True)
class Plan:
    """A network, how it is trained and compressed, and what the paper made of it on MNIST."""

    name: str
    module: nn.Module
    epochs: int
    learning_rate: float
    sparsity: float
    sharing: Sharing
    pruning_epochs: int
    paper: str
    target: int


@dataclass
class Stage:
    """A file on the way: what it weighs, and what it answers."""

    name: str
    bytes: int
    answers: np.ndarray
    details: str = ""
    session: Session | None = field(default=None)


def main() -> None:
    """Train, compress, measure, serve and print."""
    arguments = parse()
    training, test = load(arguments.data, quick=arguments.quick, choose=arguments.choose)
    plans = [plan for plan in plans_of(arguments) if arguments.network in {plan.name, "both"}]
    judging = "last training images, left out of training" if arguments.choose else "test images"
    print(f"seed {arguments.seed}: {training.samples} images to train, judged on {test.samples} {judging}")
    with tempfile.TemporaryDirectory() as folder:
        work, sessions = Path(folder), dict[str, Session]()
        for plan in plans:
            context = Context(
                workspace=work / plan.name,
                calibration=training.first(512),
                training=training,
                seed=arguments.seed,
                threads=arguments.threads,
            )
            sessions[plan.name] = compress(plan, context, test, work / "repository")
        serve(work / "repository", sessions, test)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("FLYWEIGHT_DATA", USUAL_FOLDER)))
    parser.add_argument("--network", choices=["lenet-300-100", "lenet-5", "both"], default="both")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--choose", action="store_true", help="judge on training images left out, not on test"
    )
    parser.add_argument("--sparsity", type=float, help="another share of zeros than the networks' own")
    parser.add_argument("--quick", action="store_true")
    return parser.parse_args()


def load(folder: Path, *, quick: bool, choose: bool) -> tuple[DataSet, DataSet]:
    """Return what trains and what judges: images (1, 28, 28) from 0 to 1, with their classes."""
    if not (folder / "train-images-idx3-ubyte.gz").exists() and (folder / "fashion-mnist").is_dir():
        folder = folder / "fashion-mnist"
    if not (folder / "train-images-idx3-ubyte.gz").exists():
        folder = Path(USUAL_FOLDER)
    training = part(folder, "train")
    if choose:
        kept = training.samples - CHOOSING_ROWS
        assert training.labels is not None
        judged = DataSet(training.rows(kept, training.samples), training.labels[kept:])
        training = training.first(kept)
    else:
        judged = part(folder, "t10k")
    return (training.first(6000), judged.first(2000)) if quick else (training, judged)


def part(folder: Path, name: str) -> DataSet:
    """Return the training or the test images."""
    pixels = idx(folder / f"{name}-images-idx3-ubyte.gz").astype(np.float32) / 255
    labels = idx(folder / f"{name}-labels-idx1-ubyte.gz").astype(np.int64)
    return DataSet({"image": pixels[:, None]}, labels)


def idx(path: Path) -> np.ndarray:
    """Read a gzip-compressed IDX file of unsigned bytes."""
    content = gzip.decompress(path.read_bytes())
    shape = np.frombuffer(content, ">u4", content[3], 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * content[3]).reshape(shape)


def plans_of(arguments: argparse.Namespace) -> list[Plan]:
    """Return the paper's two networks."""
    torch.manual_seed(arguments.seed)
    quick, zeros = arguments.quick, arguments.sparsity
    mlp = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    )
    convnet = nn.Sequential(
        nn.Conv2d(1, 20, 5),
        nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(800, 500),
        nn.ReLU(),
        nn.Linear(500, 10),
    )
    few = Sharing(bits=4, conv_bits=4, bias_bits=4)
    epochs = (1, 2, 1, 2) if quick else (8, 14, 5, 8)
    return [
        Plan("lenet-300-100", mlp, epochs[0], 2e-3, zeros or 0.95, few, epochs[1], "40x, 27 KB", 60),
        Plan("lenet-5", convnet, epochs[2], 1e-3, zeros or 0.97, few, epochs[3], "39x, 44 KB", 100),
    ]


def prune(plan: Plan, model: Model, context: Context) -> Model:
    """Return a pruned copy of the model, trained on labels and on what the baseline answers."""
    settings = TrainingSettings(
        epochs=plan.pruning_epochs, batch_rows=BATCH, learning_rate=2e-3, weight_decay=1e-4
    )
    return Sparsify(plan.sparsity, scope=Scope.LAMP, gradual=True, training=settings)(model, context).model


def share(plan: Plan, model: Model, context: Context) -> Model:
    """Return the model with shared weights, whose values are trained."""
    settings = TrainingSettings(
        epochs=SHARING_EPOCHS, batch_rows=BATCH, learning_rate=5e-4, weight_decay=0.0, held_out=0
    )
    return TrainedShare(plan.sharing, settings)(model, context).model


def compress(plan: Plan, context: Context, test: DataSet, repository: Path) -> Session:
    """Print the way of one network, publish both ends of it, and return a session of the decoded one."""
    started = time.monotonic()
    example = {"image": test.inputs["image"][:1]}
    settings = TrainingSettings(epochs=plan.epochs, batch_rows=BATCH, learning_rate=plan.learning_rate)
    rows = rows_of(context.training, ["image"]) if context.training is not None else None
    assert rows is not None
    train(plan.module, rows, TrainingLoss(), settings, context)
    model = Model(module=plan.module.eval(), example=example)
    context = Context(
        workspace=context.workspace,
        calibration=context.calibration,
        training=context.training,
        baseline=plan.module,
        seed=context.seed,
        threads=context.threads,
    )
    stages = [stage("fp32", Export()(model, context).model.onnx_path(), test)]
    publish(repository, plan.name, "baseline", stages[0], None)
    coded = b""
    for name, step in (("pruned", prune), ("pruned, shared", share)):
        model = step(plan, model, context)
        exported = Export()(model, context).model
        file = Encode()(exported, context).model.onnx_path()
        path = decoded(file, context.new_path("decoded"))
        coded = file.read_bytes()
        found = stage(f"{name}, coded", path, test)
        found.bytes = len(coded)
        plain = path.read_bytes()
        found.details = f"(the same graph in xz: {len(lzma.compress(plain, preset=9))})"
        stages.append(found)
    publish(repository, plan.name, "coded", stages[-1], coded)
    table(plan, stages, test, time.monotonic() - started)
    speed(coded)
    session = stages[-1].session
    assert session is not None
    return session


def stage(name: str, path: Path, test: DataSet) -> Stage:
    """Return a graph's bytes and its answers to the test images."""
    session, images = Session(path, SessionSettings()), test.inputs["image"]
    parts = [session.run({"image": images[at : at + 1000]})["output"] for at in range(0, len(images), 1000)]
    return Stage(name, path.stat().st_size, np.concatenate(parts), session=session)


def table(plan: Plan, stages: list[Stage], test: DataSet, seconds: float) -> None:
    """Print a network's stages."""
    labels = test.labels
    assert labels is not None
    print(f"\n{plan.name}, {plan.sparsity:.1%} zeros ({seconds:.0f} s)")
    print(f"{'':32}{'bytes':>10}{'smaller':>9}{'accuracy':>10}  95 % interval")
    before = stages[0].answers.argmax(axis=1) == labels
    for found in stages:
        right = int((found.answers.argmax(axis=1) == labels).sum())
        low, high = wilson(right, len(labels))
        ratio = stages[0].bytes / found.bytes
        print(
            f"{found.name:32}{found.bytes:>10}{ratio:>8.1f}x{right / len(labels):>10.2%}"
            f"  {low:.2%} to {high:.2%}  {found.details}"
        )
    after = stages[-1].answers.argmax(axis=1) == labels
    worse, better = int((before & ~after).sum()), int((after & ~before).sum())
    told = mcnemar(better, worse)
    print(f"fp32 alone right {worse} times, the last alone {better} (McNemar: p = {told.p_value:.2f})")
    print(f"{'Han et al. 2016, on MNIST':32}{plan.paper:>19}   (target here: {plan.target}x)")


def speed(coded: bytes) -> None:
    """Print how fast the file is decoded."""
    seconds, length = list[float](), 0
    for _ in range(5):
        started = time.perf_counter()
        length = len(decode(coded))
        seconds.append(time.perf_counter() - started)
    print(f"decoded in {min(seconds) * 1e3:.1f} ms, {length / 4 / min(seconds) / 1e6:.1f} million weights/s")


def publish(repository: Path, model: str, variant: str, found: Stage, coded: bytes | None) -> None:
    """Publish a variant with golden samples."""
    assert found.session is not None
    images = np.zeros((2, 1, 28, 28), np.float32)
    images[1, 0, 7:21, 7:21] = 1
    samples = GoldenSamples({"image": images}, found.session.run({"image": images}))

    def fill(folder: Path) -> None:
        assert found.session is not None
        if coded is not None:
            (folder / CODED_FILE).write_bytes(coded)
        else:
            (folder / MODEL_FILE).write_bytes(found.session.path.read_bytes())
        write_golden(folder, samples)

    manifest = VariantManifest(
        model=model, variant=variant, golden=Golden(file=GOLDEN_FILE, relative_tolerance=1e-3)
    )
    manifest.lineage.parent = "" if coded is None else "baseline"
    publish_variant(repository, manifest, fill)


def serve(repository: Path, sessions: dict[str, Session], test: DataSet) -> None:
    """Ask a real server for the coded variants and compare."""
    images = test.inputs["image"][:SERVED_ROWS]
    with serving(repository) as address, Client(address) as client:
        print(f"\nserved from {CODED_FILE}, {SERVED_ROWS} images, against onnxruntime on the decoded graph")
        for model, session in sessions.items():
            served = client.predict(model, {"image": images}, variant="coded").outputs["output"]
            expected = session.run({"image": images})["output"]
            difference = float(np.abs(served - expected).max())
            print(f"{model:32}largest difference {difference:.1e}")
            if not np.allclose(served, expected, rtol=1e-5, atol=1e-5):
                sys.exit(f"The server answers otherwise than the decoded {model}.")


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Run the server on free ports of the loopback interface, and yield where it answers."""
    program = Path(sys.executable).with_name("flyweight")
    command = [program, "serve", repository, "--port", "0", "--metrics-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                line = process.stdout.readline() if selector.select(PATIENCE_SECONDS) else ""
            if not line.startswith("flyweight ready grpc="):
                sys.exit(f"The server did not become ready ({line.strip()}).")
            yield line.split("grpc=")[1].split()[0]
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
