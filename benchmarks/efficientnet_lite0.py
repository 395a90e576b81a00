"""EfficientNet-Lite0 from its ONNX file alone, 40 crops to calibrate on: ours beside onnxruntime's quantizer.

Reads models/lite0.onnx and foolbox/data/imagenet_* (20 photographs) below the data folder. Crops at random
places and sizes, half of them mirrored, are made from a seed: two of each photograph calibrate, twenty others
are held back and judge. Agreement is that of the first of a thousand answers with fp32's. Latency is measured
in turns of all models, on one thread; the speedup is the median of the ratios of the turns.
"""

import argparse
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from PIL import Image

from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import file_bytes
from flyweight.compressor.passes.base import Pass, PassSequence
from flyweight.compressor.passes.prune.prune_graph import PruneGraph
from flyweight.compressor.passes.quantize import StaticInt8
from flyweight.compressor.sessions import Session, SessionSettings, quiet_tools

SIZE = 224
CALIBRATING = 2
HELD_BACK = 20


@dataclass(frozen=True)
class Row:
    """One model of the table: its session, what it answers on the crops held back, and its file's size."""

    name: str
    session: Session
    answers: np.ndarray
    bytes: int


def main() -> None:
    """Quantize, measure and print."""
    arguments = parse()
    calibration, held = crops(arguments.data / "foolbox" / "data", 4 if arguments.quick else HELD_BACK)
    model = arguments.data / "models" / "lite0.onnx"
    print(f"{len(calibration)} crops to calibrate, {len(held)} held back")
    with tempfile.TemporaryDirectory() as work, quiet_tools():
        paths = {"fp32": model, **plain(model, calibration, Path(work))}
        name = input_name(model)
        context = Context(workspace=Path(work), calibration=DataSet({name: calibration}))
        for row, step in ours(quick=arguments.quick).items():
            started = time.monotonic()
            result = step(Model(path=model), context)
            paths[row] = result.model.onnx_path()
            print(f"{row} ({time.monotonic() - started:.0f} s): {' '.join(result.notes)}")
        rows = [measured(row, path, held) for row, path in paths.items()]
        for batch in (1, 8):
            print_table(rows, held[:batch], 6 if arguments.quick else arguments.turns // batch + 4)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    home = os.environ.get("FLYWEIGHT_DATA", "data")
    parser.add_argument("--data", type=Path, default=Path(home), help="folder of data (or FLYWEIGHT_DATA)")
    parser.add_argument("--turns", type=int, default=120, help="of timing for batch 1")
    parser.add_argument("--quick", action="store_true", help="80 crops held back, six turns")
    return parser.parse_args()


def ours(*, quick: bool) -> dict[str, Pass]:
    """Return our passes by the names of the table."""
    passes: dict[str, Pass] = {"ours: static-int8": StaticInt8()}
    if not quick:
        passes["ours, mse"] = StaticInt8(calibration="mse")
        passes["ours, adaround"] = StaticInt8(rounding="adaround")
        passes["ours, mse, adaround"] = StaticInt8(calibration="mse", rounding="adaround")
        for ratio in (0.03, 0.05, 0.1, 0.15):
            passes[f"ours, {ratio:.0%} cut"] = PassSequence(
                [PruneGraph(ratio=ratio, mirror=True), StaticInt8()]
            )
    return passes


def crops(folder: Path, held_back: int) -> tuple[np.ndarray, np.ndarray]:
    """Return crops to calibrate on and crops held back, (n, 3, 224, 224), as the network wants them."""
    random = np.random.default_rng(0)
    calibration, held = [], []
    for path in sorted(folder.glob("imagenet_*")):
        image = Image.open(path).convert("RGB")
        for place in range(CALIBRATING + held_back):
            (calibration if place < CALIBRATING else held).append(crop(image, random))
    if not held:
        raise SystemExit(f"{folder} holds no imagenet_* photographs; name the data folder with --data.")
    return np.stack(calibration), np.stack(held)


def crop(image: Image.Image, random: np.random.Generator) -> np.ndarray:
    """Return a square of 60 to 100 % of the image's shorter side, anywhere in it, half the time mirrored."""
    width, height = image.size
    side = int(min(width, height) * random.uniform(0.6, 1.0))
    left, top = (int(random.integers(0, length - side + 1)) for length in (width, height))
    part = image.crop((left, top, left + side, top + side)).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    pixels = np.asarray(part, dtype=np.float32)
    if random.random() < 0.5:
        pixels = pixels[:, ::-1]
    return ((pixels - 127) / 128).transpose(2, 0, 1)


class Reader(CalibrationDataReader):
    """Gives onnxruntime's calibrator one crop after the other."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self._feeds = iter([{name: image[None]} for image in images])

    def get_next(  # pyright: ignore[reportIncompatibleMethodOverride]  # the base's None is not in its type
        self,
    ) -> dict[str, np.ndarray] | None:
        """Return the next feed, or None after the last."""
        return next(self._feeds, None)


def plain(model: Path, calibration: np.ndarray, work: Path) -> dict[str, Path]:
    """Quantize with onnxruntime alone: its defaults, and the settings that its documentation leads to."""
    name = input_name(model)
    prepared, default, best = (work / f"{stem}.onnx" for stem in ("prepared", "default", "best"))
    shutil.copy(model, prepared)
    quant_pre_process(str(model), str(prepared))
    quantize_static(str(model), str(default), Reader(name, calibration))
    quantize_static(
        str(prepared),
        str(best),
        Reader(name, calibration),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return {"quantize_static, defaults": default, "quantize_static, best": best}


def input_name(model: Path) -> str:
    """Return what a model calls its only input."""
    return Session(model, SessionSettings(optimise=False)).signature.inputs[0].name


def measured(name: str, path: Path, held: np.ndarray) -> Row:
    """Load a model and ask it about the crops held back."""
    session = Session(path, SessionSettings())
    asked, output = session.signature.inputs[0].name, session.signature.outputs[0].name
    answers = [session.run({asked: held[start : start + 8]})[output] for start in range(0, len(held), 8)]
    return Row(name, session, np.concatenate(answers), file_bytes(path))


def print_table(rows: list[Row], batch: np.ndarray, turns: int) -> None:
    """Time all models in turns and print a line for each."""
    runs = [row.session.runner({row.session.signature.inputs[0].name: batch}) for row in rows]
    for run in runs:
        run()
    times = np.empty((len(rows), turns))
    for turn in range(turns):
        for place, run in enumerate(runs):
            # The first of two runs brings the model's weights back into the caches.
            run()
            started = time.perf_counter()
            run()
            times[place, turn] = time.perf_counter() - started
    first = rows[0]
    print(f"\nbatch {len(batch)}: {'':14s} ms    speedup  smaller  agreement   SQNR")
    for row, taken in zip(rows, times, strict=True):
        same = float((row.answers.argmax(axis=1) == first.answers.argmax(axis=1)).mean())
        noise = float(np.square(row.answers - first.answers).sum())
        ratio = 10 * np.log10(float(np.square(first.answers).sum()) / noise) if noise else float("inf")
        print(
            f"  {row.name:26s} {np.median(taken) * 1e3:6.2f} {np.median(times[0] / taken):7.2f}x "
            f"{first.bytes / row.bytes:7.2f}x {same:9.2%} {ratio:7.1f} dB"
        )


if __name__ == "__main__":
    main()
