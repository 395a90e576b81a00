"""The models that the compressors are compared on, each with the data that all of them get."""

from argparse import Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from efficientnet_lite0 import HELD_BACK, crops, input_name
from fashion_convnet import SEED, fashion, trained
from flyweight.compressor.context import Context
from flyweight.compressor.data import DataSet, load_data
from flyweight.compressor.passes.export import Export
from flyweight.compressor.torch_model import model_of

_CALIBRATION_ROWS: Final = 512


@dataclass(frozen=True, slots=True)
class Case:
    """A model with its data.

    Attributes:
        name: for the table.
        model: the ONNX file.
        calibration: what every tool may learn from.
        evaluation: what no tool sees, and the table is about.
        kind: static or dynamic, as the documentations of the others advise for this sort of network.
    """

    name: str
    model: Path
    calibration: DataSet
    evaluation: DataSet
    kind: str


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the cases come from.

    Attributes:
        data: the folder of data.
        work: a folder to work in.
        weights: the convnet's, read if there and written if not; None trains it without a trace.
        quick: whether a little of everything is enough.
    """

    data: Path
    work: Path
    weights: Path | None
    quick: bool


def lite0(origin: Origin) -> Case:
    """Return EfficientNet-Lite0 with 40 crops of photographs to calibrate, and 400 others."""
    model = origin.data / "models" / "lite0.onnx"
    calibration, held = crops(origin.data / "foolbox" / "data", 2 if origin.quick else HELD_BACK)
    name = input_name(model)
    return Case("EfficientNet-Lite0", model, DataSet({name: calibration}), DataSet({name: held}), "static")


def minilm(origin: Origin) -> Case:
    """Return MiniLM with a sentiment head, with 512 sentences to calibrate, and 1,000 others."""
    folder = origin.data / "models"
    calibration, evaluation = (
        load_data(folder / f"minilm_sentiment_{part}.npz") for part in ("train", "eval")
    )
    rows = 64 if origin.quick else _CALIBRATION_ROWS
    evaluation = evaluation.first(100) if origin.quick else evaluation
    model = folder / "minilm_sentiment.onnx"
    return Case("MiniLM, sentiment", model, calibration.first(rows), evaluation, "dynamic")


def convnet(origin: Origin) -> Case:
    """Return the convnet of fashion_convnet.py, trained now, with 512 images to calibrate on."""
    training, test = fashion(origin.data, "train"), fashion(origin.data, "t10k")
    if origin.quick:
        training, test = training.first(2000), test.first(1000)
    few = training.first(_CALIBRATION_ROWS)
    context = Context(workspace=origin.work, calibration=few, seed=SEED, threads=2)
    module = trained(training, context, Namespace(weights=origin.weights, quick=origin.quick))
    path = Export()(model_of(module, training), context).model.onnx_path()
    # These images were trained on, as calibration data usually are.
    return Case("Fashion-MNIST convnet", path, few, test, "static")


CASES: Final[Mapping[str, Callable[[Origin], Case]]] = {"lite0": lite0, "minilm": minilm, "convnet": convnet}


def given(name: str, model: str, calibration: str, evaluation: str, kind: str) -> Case:
    """Return a case of the user's own files."""
    rows = load_data(Path(calibration)).first(_CALIBRATION_ROWS)
    return Case(name, Path(model), rows, load_data(Path(evaluation)), kind)
