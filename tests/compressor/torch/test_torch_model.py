"""Taking in a user's module."""

import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import DataError, ModelError
from flyweight.compressor.torch_model import load_module, model_of, outputs_of

ROWS = DataSet({"row": np.ones((3, 4), np.float32)})
SOURCE = """
import torch

not_a_function = 3

def linear():
    return torch.nn.Linear(4, 2)

def broken():
    raise ValueError("no config here\\nsecond line")

def text():
    return "a module"

def leaving():
    raise SystemExit(3)
"""


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of the user's in the working directory."""
    name = "users_network"
    (tmp_path / f"{name}.py").write_text(dedent(SOURCE))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, name, raising=False)
    return name


def test_a_factory_in_the_working_directory_is_found(spec: str) -> None:
    path = list(sys.path)
    model = load_module(f"{spec}:linear", None, ROWS)
    assert isinstance(model.module, nn.Linear)
    assert not model.module.training
    assert {name: array.shape for name, array in model.example.items()} == {"row": (1, 4)}
    assert model.output_names == ("output",)
    assert sys.path == path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_are_loaded(spec: str, tmp_path: Path, suffix: str) -> None:
    weights = {"weight": torch.full((2, 4), 2.0), "bias": torch.zeros(2)}
    path = tmp_path / f"weights{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save({"state_dict": weights}, path)
    module = load_module(f"{spec}:linear", path, ROWS).torch_module()
    assert torch.equal(module.weight, weights["weight"])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("linear", "does not name a factory"),
        (":linear", "does not name a factory"),
        ("no_such_module_anywhere:linear", "cannot be imported"),
        ("{spec}:absent", "has no 'absent'"),
        ("{spec}:not_a_function", "is a int and not a function"),
        ("{spec}:broken", r"failed \(ValueError: no config here\)"),
        ("{spec}:text", "returned a str"),
        ("{spec}:leaving", "ended the program with exit code 3"),
    ],
)
def test_a_factory_that_is_none_is_named(spec: str, name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_module(name.format(spec=spec), None, ROWS)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"weight": torch.zeros(2, 4)}, "lacks bias"),
        ({"weight": torch.zeros(2, 4), "bias": torch.zeros(2), "extra": torch.zeros(1)}, "it has extra"),
        ({"weight": torch.zeros(3, 4), "bias": torch.zeros(2)}, r"weight is \[3, 4\] and should be \[2, 4\]"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    spec: str, tmp_path: Path, weights: dict[str, torch.Tensor], words: str
) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match=words):
        load_module(f"{spec}:linear", tmp_path / "w.safetensors", ROWS)


class Payload:
    """Something that would run code when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("was_here"),))


def test_a_pickle_is_never_run(spec: str, tmp_path: Path) -> None:
    torch.save({"weight": Payload()}, tmp_path / "w.pt")
    with pytest.raises(ModelError, match="cannot be read as weights"):
        load_module(f"{spec}:linear", tmp_path / "w.pt", ROWS)
    assert not (tmp_path / "was_here").exists()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("w.txt", "neither a .safetensors"),
        ("absent.pt", "does not exist"),
        ("junk.safetensors", "cannot be read"),
    ],
)
def test_a_file_that_is_no_weights_is_named(spec: str, tmp_path: Path, name: str, words: str) -> None:
    if not name.startswith("absent"):
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(ModelError, match=words):
        load_module(f"{spec}:linear", tmp_path / name, ROWS)


def test_a_checkpoint_of_something_else_is_named(spec: str, tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "w.pt")
    with pytest.raises(ModelError, match="does not hold a state_dict"):
        load_module(f"{spec}:linear", tmp_path / "w.pt", ROWS)


class Two(nn.Module):
    def forward(
        self, left: torch.Tensor, right: torch.Tensor, scale: float = 1.0
    ) -> tuple[torch.Tensor, ...]:
        return left * scale, right


def test_several_inputs_are_taken_in_the_order_of_forward() -> None:
    ones = np.ones((2, 3), np.float32)
    model = model_of(Two(), DataSet({"right": ones, "left": 2 * ones}))
    assert list(model.example) == ["left", "right"]
    assert model.output_names == ("output_0", "output_1")


@pytest.mark.parametrize("names", [("left",), ("left", "wrong"), ("left", "right", "more")])
def test_arrays_that_are_not_the_inputs_are_named(names: tuple[str, ...]) -> None:
    data = DataSet({name: np.ones((2, 3), np.float32) for name in names})
    with pytest.raises(DataError, match=r"forward\(left, right, scale\)"):
        model_of(Two(), data)


def test_a_module_that_fails_on_the_data_says_how() -> None:
    with pytest.raises(ModelError, match=r"Linear fails on the first sample, row float32\[1, 4\]"):
        model_of(nn.Linear(5, 2), ROWS)


def test_double_precision_data_get_a_hint() -> None:
    with pytest.raises(ModelError, match="input 'row' is float64, save it as float32"):
        model_of(nn.Linear(4, 2), DataSet({"row": np.ones((3, 4))}))


@pytest.mark.parametrize("returned", ["text", None, (), (torch.zeros(1), 3)])
def test_outputs_must_be_tensors(returned: object) -> None:
    with pytest.raises(ModelError, match="must return tensors"):
        outputs_of(returned)
