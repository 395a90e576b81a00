"""Taking in a user's torch module: a factory function and a file of weights, tried on the user's data."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from flyweight.compressor.errors import DataError, ModelError
from flyweight.compressor.foreign import Result, quiet, run_foreign
from flyweight.compressor.model import Array, Model, example_of

if TYPE_CHECKING:
    from flyweight.compressor.data import DataSet

CHECKPOINTS: Final = (".pt", ".pth", ".bin", ".ckpt")


def load_module(spec: str, weights: Path | None, data: "DataSet") -> Model:
    """Build a module with the user's factory, fill it with weights, and try it on the first sample.

    Args:
        spec: `package.module:factory`, looked up from the working directory first, as `python -m` does. It is
            called without arguments and returns a torch.nn.Module.
        weights: a .safetensors file or a checkpoint of tensors (read with weights_only, never as pickled
            code); None when the factory loads them itself.
        data: of which the first sample becomes the example.

    Raises:
        ModelError: there is no such factory, it fails or returns no module, or the weights do not fit it.
        DataError: the data's arrays are not the module's inputs.
    """
    factory = _find(spec)
    module = run_foreign(
        lambda: _without_exit(factory), lambda reason: ModelError(f"The factory {spec} failed ({reason}).")
    )
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"The factory {spec} returned a {type(module).__name__}; it must return a torch.nn.Module."
        )
    if weights is not None:
        _load_weights(module, weights, spec)
    return model_of(module, data)


def model_of(module: nn.Module, data: "DataSet") -> Model:
    """Return `module`, set to evaluation mode, as a model whose example is the first sample of `data`.

    A module with one input takes the data's only array, whatever its name is, which then names the input of
    the exported graph. With more inputs, arrays are matched to the parameters of forward() by name.

    Raises:
        DataError: the data's arrays are not the module's inputs.
        ModelError: the module fails on the sample, or returns something else than tensors.
    """
    module = module.eval()
    inputs = {name: data.inputs[name] for name in _input_names(module, data)}
    example = example_of(inputs)
    doubles = [name for name, array in example.items() if array.dtype == np.float64]
    hint = f"; input {doubles[0]!r} is float64, save it as float32" if doubles else ""
    with quiet(), torch.no_grad():
        returned = run_foreign(
            lambda: module(*(torch.from_numpy(array.copy()) for array in example.values())),
            lambda reason: ModelError(
                f"The module {type(module).__name__} fails on the first sample, {_shapes(example)} "
                f"({reason}){hint}."
            ),
        )
    return Model(module=module, example=example, output_names=_output_names(returned))


def outputs_of(returned: object) -> tuple[Tensor, ...]:
    """Return the tensors that a module's forward() returned: alone, in a tuple or list, or in a dictionary.

    Raises:
        ModelError: it returned something else.
    """
    if isinstance(returned, Mapping):
        returned = tuple(returned.values())
    found = tuple(returned) if isinstance(returned, tuple | list) else (returned,)
    tensors = tuple(value for value in found if isinstance(value, Tensor))
    if not found or len(tensors) != len(found):
        raise ModelError(
            f"The module's forward() returned {_kinds(found)}; it must return tensors, "
            "alone, in a tuple or in a dictionary."
        )
    return tensors


def _find(spec: str) -> Callable[[], object]:
    module_name, separator, attribute = spec.partition(":")
    if not (module_name and separator and attribute):
        raise ModelError(f"{spec!r} does not name a factory; write package.module:function.")
    with _importable_from(Path.cwd()):
        found = run_foreign(
            lambda: _without_exit(lambda: importlib.import_module(module_name)),
            lambda reason: ModelError(
                f"The Python module {module_name} cannot be imported ({reason}); check its name, "
                "and run flyweight where it can be imported from."
            ),
        )
    factory = getattr(found, attribute, None)
    if factory is None:
        raise ModelError(
            f"The Python module {module_name} has no {attribute!r}; check the name after the colon."
        )
    if not callable(factory):
        raise ModelError(f"{spec} is a {type(factory).__name__} and not a function that returns a module.")
    made: Callable[[], object] = factory
    return made


def _without_exit(call: Callable[[], Result]) -> Result:
    """Return what the user's code returns; a script that ends the interpreter is an error like any other."""
    try:
        return call()
    except SystemExit as error:
        raise RuntimeError(f"it ended the program with exit code {error.code}") from error


@contextmanager
def _importable_from(folder: Path) -> Iterator[None]:
    """Look in `folder` first, as `python -m` does and an installed command does not."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


def _load_weights(module: nn.Module, path: Path, spec: str) -> None:
    if not path.exists():
        raise ModelError(f"The weights file {path} does not exist; check the path given with --weights.")
    found = run_foreign(
        lambda: _read(path),
        lambda reason: ModelError(
            f"{path} cannot be read as weights ({reason}); save a state_dict as .safetensors."
        ),
    )
    expected = module.state_dict()
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    wrong = sorted(key for key in expected.keys() & found.keys() if expected[key].shape != found[key].shape)
    faults = [
        f"it lacks {_some(missing)}" if missing else "",
        f"it has {_some(unknown)}, which the module has not" if unknown else "",
        f"{wrong[0]} is {list(found[wrong[0]].shape)} and should be {list(expected[wrong[0]].shape)}"
        if wrong
        else "",
    ]
    told = "; ".join(fault for fault in faults if fault)
    if told:
        raise ModelError(f"The weights in {path} do not fit {spec}: {told}.")
    module.load_state_dict(found)


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    if path.suffix not in CHECKPOINTS:
        raise ModelError(
            f"{path} is neither a .safetensors file nor a checkpoint ({', '.join(CHECKPOINTS)}); "
            "save the module's state_dict as one of them."
        )
    # weights_only: a checkpoint is data; unpickling arbitrary objects would run code from the file.
    loaded = torch.load(path, map_location="cpu", weights_only=True)
    nested = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(nested, dict) or not all(isinstance(value, Tensor) for value in nested.values()):
        raise ModelError(f"{path} does not hold a state_dict; save module.state_dict() and nothing else.")
    return nested


def _input_names(module: nn.Module, data: "DataSet") -> list[str]:
    """Return the names of the data's arrays in the order of the module's forward()."""
    parameters = [
        parameter
        for parameter in inspect.signature(module.forward).parameters.values()
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}
    ]
    required = [parameter.name for parameter in parameters if parameter.default is parameter.empty]
    if len(data.inputs) == 1 and len(required) <= 1:
        return list(data.inputs)
    wanted = [parameter.name for parameter in parameters]
    missing = [name for name in required if name not in data.inputs]
    unknown = [name for name in data.inputs if name not in wanted]
    if missing or unknown:
        raise DataError(
            f"The arrays of the data ({', '.join(data.inputs)}) are not the inputs of "
            f"{type(module).__name__}.forward({', '.join(wanted)}); name each array as its parameter."
        )
    given = [name for name in wanted if name in data.inputs]
    if given != wanted[: len(given)]:
        skipped = next(name for name in wanted if name not in data.inputs)
        raise DataError(
            f"The data lack {skipped!r}, which comes before {given[-1]!r} in forward(); add that array."
        )
    return given


def _output_names(returned: object) -> tuple[str, ...]:
    count = len(outputs_of(returned))
    if isinstance(returned, Mapping):
        return tuple(str(name) for name in returned)
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def _shapes(arrays: Mapping[str, Array]) -> str:
    return ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in arrays.items())


def _kinds(values: tuple[object, ...]) -> str:
    return ", ".join(type(value).__name__ for value in values) or "nothing"
