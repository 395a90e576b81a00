"""What the options of a pass are: types, allowed values, ranges, defaults, and what each of them does."""

import dataclasses
import inspect
import re
import types
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.recipe import plain

_KINDS: Final = {bool: "true or false", int: "integer", float: "number", str: "text"}
# What limits of options are: small numbers, powers of two, whole percents, and what lies just beside 0 and 1.
_WHOLE: Final[tuple[float, ...]] = (-1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 128, 256, 1000, 10**6)
_PARTS: Final[tuple[float, ...]] = (
    *(-1.0, 0.0, 1e-9, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9),
    *(50.0, 50 + 1e-6, 75.0, 100.0, 100 + 1e-6, 1e6),
)
_ENDS: Final = {50 + 1e-6: "above 50", 1e-9: "above 0", 1 - 1e-9: "below 1", 1 + 1e-9: "above 1"}


@dataclass(frozen=True, slots=True)
class OptionTold:
    """One option as `flyweight passes NAME` explains it.

    Attributes:
        name: of the option; a part of a group has the group's name and a dot before its own.
        values: its type, or the values that it may have.
        default: in YAML's types.
        text: what it does.
    """

    name: str
    values: str
    default: object
    text: str


def options_of(kind: Any, prefix: str = "") -> Iterator[OptionTold]:  # a dataclass: Python has no type for it
    """Yield the options of a pass, those of a group of options one by one."""
    hints, texts = get_type_hints(kind), _texts(kind)
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        name, hint, default = prefix + field.name, hints[field.name], default_of(field)
        text = texts.get(field.name, "")
        group = next((part for part in _parts(hint) if dataclasses.is_dataclass(part)), None)
        if group is None:
            yield OptionTold(name, _values(hint) + _range(kind, field.name, hint), plain(default), text)
            continue
        if default is None or text:
            yield OptionTold(
                name,
                "a group of options" if default is not None else "none, or a group",
                None if default is None else "as below",
                text,
            )
        made = group if default is None else _with_defaults(group, default)
        yield from options_of(made, f"{name}.")


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """Return the default of an option; the word (required) where it has none."""
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else "(required)"


def _with_defaults(group: Any, default: Any) -> Any:
    """Return the class of a group with the defaults that it has inside a pass."""
    fields = [
        (
            field.name,
            get_type_hints(group)[field.name],
            dataclasses.field(default=getattr(default, field.name)),
        )
        for field in dataclasses.fields(group)
        if field.init and getattr(default, field.name).__class__.__hash__ is not None
    ]
    made = dataclasses.make_dataclass(group.__name__, fields, bases=(group,), frozen=True)
    made.__doc__ = group.__doc__
    return made


def _parts(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _values(hint: Any) -> str:
    """Return in words what an option may be."""
    return " or ".join(_one(part) for part in _parts(hint))


def _one(hint: Any) -> str:
    if hint is type(None):
        return "null"
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(str(member.value) for member in hint)
    if get_origin(hint) is tuple:
        return f"list of {_one(get_args(hint)[0])}"
    return _KINDS.get(hint) or str(getattr(hint, "__name__", hint))


def _range(kind: Any, name: str, hint: Any) -> str:
    """Return which numbers a pass accepts for an option beside its other defaults, as far as one can try."""
    parts = _parts(hint)
    tried: tuple[float, ...] = _WHOLE if int in parts else _PARTS if float in parts else ()
    allowed = [value for value in tried if _accepts(kind, name, value)]
    if len(allowed) < 2 or len(allowed) == len(tried):
        return ""
    low, high = allowed[0], allowed[-1]
    # What lies between two of the numbers that are tried would be told wrongly.
    step = 1 if int in parts else 2e-6
    told = [] if _accepts(kind, name, low - step) else [_ENDS.get(low, f"at least {low:g}")]
    told += [] if _accepts(kind, name, high + step) else [_ENDS.get(high, f"at most {high:g}")]
    return f", {', '.join(told)}" if told else ""


def _accepts(kind: Any, name: str, value: float) -> bool:
    try:
        kind(**{name: value})
    except (RecipeError, TypeError, ValueError):
        return False
    return True


def _texts(kind: Any) -> dict[str, str]:
    """Return what the docstrings of a class and of its parents say of each attribute."""
    texts: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        _, _, section = (inspect.cleandoc(parent.__doc__ or "")).partition("\nAttributes:\n")
        for found in re.finditer(r"^ {4}(\w+): (.*(?:\n {8,}.*)*)", section, re.MULTILINE):
            texts[found[1]] = " ".join(found[2].split())
    return texts
