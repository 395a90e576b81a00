"""The command `flyweight passes`: what recipes may be made of."""

import dataclasses
import inspect
import json
from typing import Any

import click
import yaml

from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.catalogue import CATALOGUE
from flyweight.compressor.recipe import pass_class, plain


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def passes(name: str | None, *, as_json: bool) -> None:
    """List the passes that recipes are made of, or explain the pass NAME and its options.

    A recipe file names a variant and its passes, in order; see docs/compress.md.
    """
    if name is not None and name not in CATALOGUE:
        raise RecipeError(f"There is no pass {name!r}; there are {', '.join(sorted(CATALOGUE))}.")
    # Of one, what is missing is an error that says what to install; the list shows the others all the same.
    described = [describe(name)] if name is not None else [_describe_if_installed(each) for each in CATALOGUE]
    if as_json:
        click.echo(json.dumps(described, indent=2))
    elif name is None:
        width = max(map(len, CATALOGUE))
        for each in described:
            click.echo(f"{each['name']:<{width}}  {each['summary']}")
        click.echo("\nOptions and sources of one: flyweight passes NAME")
    else:
        _explain(described[0])


def describe(name: str) -> dict[str, Any]:
    """Return a pass's forms, documentation, and options with their defaults."""
    kind = pass_class(name)
    text = inspect.getdoc(kind) or ""
    return {
        "name": name,
        "summary": text.splitlines()[0],
        "needs": kind.needs.value,
        "gives": kind.gives.value,
        "text": text,
        "options": {field.name: _default(field) for field in dataclasses.fields(kind) if field.init},
    }


def _describe_if_installed(name: str) -> dict[str, Any]:
    try:
        return describe(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "flyweight":
            raise
        return {
            "name": name,
            "summary": f"Needs {error.name}, which is not installed: see flyweight passes {name}",
        }


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default is not dataclasses.MISSING:
        return plain(field.default)
    return (
        plain(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "(required)"
    )


def _explain(described: dict[str, Any]) -> None:
    click.echo(f"{described['name']}: from {described['needs']} to {described['gives']}\n")
    click.echo(described["text"])
    click.echo("\nIn a recipe:\n\n  passes:")
    options = yaml.safe_dump(described["options"], default_flow_style=True, sort_keys=False, width=10_000)
    click.echo(
        f"    - {described['name']}: {options}" if described["options"] else f"    - {described['name']}"
    )
