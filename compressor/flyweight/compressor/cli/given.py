"""What the command line of `flyweight compress` gave, checked, and as what the compressor takes."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click
from click.core import ParameterSource

from flyweight.compressor.errors import RecipeError

if TYPE_CHECKING:
    from flyweight.compressor.data import DataSet
    from flyweight.compressor.gate import Limits
    from flyweight.compressor.model import Model
    from flyweight.compressor.options import Options
    from flyweight.compressor.passes.base import Pass


def require_budget(given: dict[str, Any]) -> None:
    """Refuse what belongs to a search where none was asked for, also when it has the default's value."""
    context = click.get_current_context()
    named = [
        f"--{name}"
        for name in ("trials", "workers", "study")
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT
    ]
    if named and given["budget"] is None:
        belongs = "belongs" if len(named) == 1 else "belong"
        raise click.UsageError(
            f"{' and '.join(named)} {belongs} to a search; say what it is to reach with --budget."
        )


def require_writable(html: Path) -> None:
    """Refuse a place for the report before minutes of work, as far as one can tell."""
    if not html.parent.is_dir():
        raise click.UsageError(f"--report: the folder {html.parent} does not exist; make it.")
    if html.is_dir() or not os.access(html if html.exists() else html.parent, os.W_OK):
        raise click.UsageError(f"--report: {html} cannot be written; name a file that you may write.")


def options(given: dict[str, Any], progress: Any) -> "Options":  # see compress
    """Return the options, of which the command names most."""
    from flyweight.compressor.data import load_data
    from flyweight.compressor.evaluate.settings import EvaluationSettings
    from flyweight.compressor.options import Options

    return Options(
        training=None if given["train"] is None else load_data(given["train"]),
        limits=_limits(given),
        threads=given["threads"],
        seed=given["seed"],
        calibration_samples=given["calibration_samples"],
        seconds_per_point=given["seconds_per_point"],
        output=given["output"],
        agreement=given["agreement"],
        progress=progress,
        evaluation={
            "no": EvaluationSettings.quick,
            "briefly": EvaluationSettings,
            "thoroughly": EvaluationSettings.thorough,
        }[given["examine"]](),
        explain=given["examine"] != "no",
        transfer=given["transfer"],
        trials=given["trials"],
        workers=given["workers"],
        study=given["study"],
        work_folder=given["work_folder"],
        time_limit_seconds=given["time_limit"],
    )


def _limits(given: dict[str, Any]) -> "Limits":
    from flyweight.compressor.gate import Limits

    return Limits(given["max_drop"], given["max_slowdown"], given["max_bytes_ratio"], given["min_gain"])


def model(given: dict[str, Any], data: "DataSet") -> "Model | Path":
    """Return the ONNX file, or the torch module with its weights."""
    if given["module"] is None:
        return cast("Path", given["model"])
    from flyweight.compressor.torch_model import load_module

    return load_module(given["module"], given["weights"], data)


def recipes(paths: tuple[Path, ...]) -> "dict[str, Pass] | None":
    """Return the recipes of all files by variant name; None where no file was given.

    Raises:
        RecipeError: a file cannot be read as recipes, or two have one name.
    """
    from flyweight.compressor.recipe import load_recipes

    found: dict[str, Pass] = {}
    for path in paths:
        for name, recipe in load_recipes(path).items():
            if name in found:
                raise RecipeError(f"Two recipes are called {name!r}, the second in {path}; rename one.")
            found[name] = recipe
    return found or None
