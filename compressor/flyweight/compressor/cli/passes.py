"""The command `flyweight passes`: what recipes may be made of."""

import dataclasses
import inspect
import json
from typing import Any, Final

import click
import yaml

from flyweight.compressor.cli.explaining import default_of, options_of
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.passes.catalogue import CATALOGUE
from flyweight.compressor.recipe import no_such_pass, pass_class, plain

_EPILOG: Final = """\b
Examples:
  flyweight passes
  flyweight passes static-int8
"""


@click.command(epilog=_EPILOG)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def passes(name: str | None, *, as_json: bool) -> None:
    """List the passes that recipes are made of, or explain the pass NAME and its options.

    A recipe file names a variant and its passes, in order; see docs/compress.md.
    """
    if name is not None and name not in CATALOGUE:
        message = no_such_pass(name)
        raise RecipeError(message[0].upper() + message[1:])
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
    """Return a pass's forms, documentation, options with their defaults, and what each option does."""
    kind = pass_class(name)
    text = inspect.getdoc(kind) or ""
    return {
        "name": name,
        "summary": text.splitlines()[0],
        "needs": kind.needs.value,
        "gives": kind.gives.value,
        "text": text,
        "options": {field.name: plain(default_of(field)) for field in dataclasses.fields(kind) if field.init},
        "told": [dataclasses.asdict(option) for option in options_of(kind)],
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


def _explain(described: dict[str, Any]) -> None:
    click.echo(f"{described['name']}: from {described['needs']} to {described['gives']}\n")
    # The options are told below, with what the documentation of their groups says.
    click.echo(described["text"].partition("\nAttributes:")[0].rstrip())
    told = list(options_of(pass_class(described["name"])))
    if told:
        click.echo("\nOptions:")
    for option in told:
        default = (
            "" if option.default is None and "null" not in option.values else _default_text(option.default)
        )
        click.echo(f"  {option.name}: {option.values}{default}")
        click.echo(click.wrap_text(option.text, 100, "      ", "      "))
    click.echo("\nIn a recipe, all of it with its defaults:\n\n  passes:")
    options = yaml.safe_dump(described["options"], default_flow_style=True, sort_keys=False, width=10_000)
    click.echo(
        f"    - {described['name']}: {options}" if described["options"] else f"    - {described['name']}"
    )


def _default_text(value: object) -> str:
    return f" [default: {json.dumps(value).strip(chr(34))}]"
