"""What is public, and that both clients offer the same."""

import inspect
from enum import Enum
from pathlib import Path
from typing import Any, is_typeddict

import flyweight.client
import flyweight.client.testing
from flyweight.client import AsyncClient, Client

PINNED = Path(__file__).with_name("public_surface.txt")


def described(module: Any) -> list[str]:
    """One line for every public name of a module, and for every public method of its classes."""
    lines: list[str] = []
    for name in sorted(module.__all__):
        found = getattr(module, name)
        if is_typeddict(found):
            lines.append(f"{name} {{{', '.join(sorted(found.__annotations__))}}}")
        elif inspect.isclass(found) and issubclass(found, Exception | Enum):
            lines.append(name)
        elif inspect.isclass(found):
            lines += [f"{name}{signature(found)}", *(f"{name}.{line}" for line in members(found))]
        else:
            lines.append(f"{name}{signature(found)}" if inspect.isfunction(found) else name)
    return lines


def signature(found: Any) -> str:
    """Names, order and defaults; the types are mypy's to check, and numpy's spell differently by version."""
    whole = inspect.signature(found)
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in whole.parameters.values()]
    return str(whole.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def members(found: type) -> list[str]:
    own = {name: value for name, value in vars(found).items() if not name.startswith("_")}
    methods = [f"{name}{signature(value)}" for name, value in own.items() if inspect.isfunction(value)]
    properties = [name for name, value in own.items() if isinstance(value, property)]
    return sorted(methods + properties)


def test_the_public_surface_is_the_pinned_one() -> None:
    """A change here is a change for users: write it in CHANGELOG.md, then replace the pinned file."""
    lines = ["flyweight.client", *described(flyweight.client)]
    lines += ["", "flyweight.client.testing", *described(flyweight.client.testing)]
    assert "\n".join(lines).splitlines() == PINNED.read_text().splitlines()


def test_both_clients_take_the_same_calls() -> None:
    def calls(client: type) -> dict[str, str]:
        return {
            name: str(inspect.signature(value))
            for name, value in vars(client).items()
            if inspect.isfunction(value) and not name.startswith("_")
        }

    assert calls(Client) == calls(AsyncClient)
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_every_public_name_has_a_docstring() -> None:
    for name in flyweight.client.__all__:
        assert inspect.getdoc(getattr(flyweight.client, name)), name


def test_the_package_is_typed() -> None:
    assert flyweight.client.__file__ is not None
    assert Path(flyweight.client.__file__).with_name("py.typed").is_file()
