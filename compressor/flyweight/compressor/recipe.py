"""Recipes: what passes to apply, and what to call the outcome, in YAML or in Python.

    name: int8
    passes:
      - static-int8: {per_channel: true, calibration: percentile}

One file may hold several recipes, as YAML documents divided by `---`. In Python a recipe is a pass, or a
`PassSequence`, and recipes are a dict from variant names to passes.
"""

import dataclasses
from collections.abc import Mapping
from difflib import get_close_matches
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import TypeAdapter, ValidationError

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.base import Form, Pass, PassSequence
from flyweight.compressor.passes.catalogue import CATALOGUE
from flyweight.protos.variant import is_valid_name

BASELINE: Final = "baseline"


def default_recipes() -> dict[str, Pass]:
    """Return the recipes for an ONNX model, by variant name."""
    from flyweight.compressor.passes.quantize import DynamicInt8, Fp16Storage, StaticInt8

    return {"int8": StaticInt8(), "int8-dynamic": DynamicInt8(), "fp16": Fp16Storage()}


def load_recipes(path: Path) -> dict[str, Pass]:
    """Read the recipes of a YAML file, by variant name.

    Raises:
        RecipeError: the file is missing or malformed, or names a pass or an option that does not exist.
    """
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise RecipeError(f"The recipe {path} cannot be read ({reason}); check the path.") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not YAML ({' '.join(str(error).split())[:200]}).") from error
    recipes: dict[str, Pass] = {}
    for document in documents:
        name, recipe = _parse(document, str(path))
        if name in recipes:
            raise RecipeError(f"{path} holds two recipes called {name!r}; rename one.")
        recipes[name] = recipe
    if not recipes:
        raise RecipeError(f"{path} holds no recipe; write `name:` and `passes:`.")
    return recipes


def _parse(document: object, where: str) -> tuple[str, Pass]:
    if not isinstance(document, dict):
        raise RecipeError(f"{where} holds {document!r} where a recipe with `name:` and `passes:` should be.")
    for key in document:
        if key not in {"name", "passes"}:
            raise RecipeError(f"{where}: a recipe has no key {key!r}; its keys are name and passes.")
    name, steps = document.get("name"), document.get("passes")
    if name is None:
        raise RecipeError(f"{where}: the recipe has no name; write `name: ...`, which its variant is called.")
    require_variant_name(name, where)
    if not isinstance(steps, list) or not steps:
        raise RecipeError(f"{where}: the recipe {name!r} needs a list of at least one pass under `passes:`.")
    passes = [_parse_pass(step, f"{where}: recipe {name!r}") for step in steps]
    passes = _bridged(passes)
    return str(name), passes[0] if len(passes) == 1 else PassSequence(passes)


def _bridged(passes: list[Pass]) -> list[Pass]:
    """Put an export or an import between neighbours that need one; nobody means anything else."""
    bridges = {(Form.TORCH, Form.ONNX): "export", (Form.ONNX, Form.TORCH): "import"}
    joined = passes[:1]
    for later in passes[1:]:
        bridge = bridges.get((joined[-1].gives, later.needs))
        if bridge is not None:
            joined.append(_make(bridge, {}, "a recipe"))
        joined.append(later)
    return joined


def require_variant_name(name: object, where: str) -> None:
    """Check what a recipe calls its variant.

    Raises:
        RecipeError: it cannot name a variant, or is the baseline's.
    """
    if not isinstance(name, str) or not is_valid_name(name):
        raise RecipeError(
            f"{where}: {name!r} cannot name a variant; use letters, digits, '.', '_' and '-' (quote numbers)."
        )
    if name == BASELINE:
        raise RecipeError(f"{where}: {BASELINE!r} is the uncompressed model's name; choose another.")


def _parse_pass(step: object, where: str) -> Pass:
    if isinstance(step, str):
        name, options = step, dict[str, object]()
    elif isinstance(step, dict) and len(step) == 1:
        name, options = next(iter(step.items()))
        options = {} if options is None else options
    else:
        raise RecipeError(f"{where}: {step!r} is no pass; write `- name` or `- name: {{option: value}}`.")
    if name not in CATALOGUE:
        raise RecipeError(f"{where}: {no_such_pass(name)}")
    if not isinstance(options, dict):
        raise RecipeError(f"{where}: the options of {name} are {options!r} and should be a mapping.")
    return _make(name, options, where)


def no_such_pass(name: object) -> str:
    """Return a sentence on a pass that does not exist, with the name that was probably meant."""
    near = get_close_matches(str(name).lower().replace("_", "-"), CATALOGUE, n=1)
    meant = f"did you mean {near[0]!r}?" if near else "`flyweight passes` lists what there is."
    return f"there is no pass {name!r}; {meant}"


def _make(name: str, options: Mapping[str, Any], where: str) -> Pass:
    kind = pass_class(name)
    known = [field.name for field in dataclasses.fields(kind) if field.init]
    for option in options:
        if option not in known:
            near = get_close_matches(str(option), known, n=1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            listed = f"its options are {', '.join(known)}" if known else "it has none"
            raise RecipeError(f"{where}: {name} has no option {option!r}; {meant}{listed}.")
    try:
        made = TypeAdapter(kind).validate_python(dict(options))
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(str(part) for part in fault["loc"])
        raise RecipeError(f"{where}: option {place} of {name}: {fault['msg']}.") from error
    except RecipeError as error:
        raise RecipeError(f"{where}: {name}: {error}") from error
    assert isinstance(made, Pass)
    return made


def pass_class(name: str) -> Any:  # a dataclass and a Pass: Python has no type for both
    """Return the class of the pass that recipes call `name`; importing it may need an extra."""
    module, _, attribute = CATALOGUE[name].place.partition(":")
    return getattr(import_module(f"flyweight.compressor.passes.{module}"), attribute)


def steps_of(recipe: Pass) -> tuple[Pass, ...]:
    """Return the single passes of a recipe, in order."""
    if isinstance(recipe, PassSequence):
        return tuple(step for part in recipe.passes for step in steps_of(part))
    return (recipe,)


def kind_of(recipe: Pass) -> str:
    """Return what makes a variant differ from its baseline, in a few words."""
    kinds = [
        CATALOGUE[step.name].kind if step.name in CATALOGUE else step.name.replace("-", " ")
        for step in steps_of(recipe)
    ]
    return " + ".join(kind for kind in kinds if kind) or "exported"


def dump_recipe(name: str, recipe: Pass) -> str:
    """Return a recipe as YAML, every option written out, so that it can be repeated from a manifest."""
    passes: list[object] = []
    for step in steps_of(recipe):
        options = dataclasses.asdict(step) if dataclasses.is_dataclass(step) else dict[str, object]()
        passes.append({step.name: plain(options)} if options else step.name)
    return yaml.safe_dump({"name": name, "passes": passes}, sort_keys=False)


def plain(value: object) -> object:
    """Return a value in the types that YAML has."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    return plain(value.value) if isinstance(value, Enum) else value
