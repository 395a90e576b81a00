"""The command `flyweight token`: a new token for one caller, and what to write into the access file."""

import json
from typing import Final

import click
from pydantic import ValidationError

from flyweight.server.security.callers import Role
from flyweight.server.security.document import NAME_RULE, CallerDocument
from flyweight.server.security.tokens import digest_of, new_token
from flyweight.server.serve_options import choice_of

_EPILOG: Final = """\b
Examples:
  flyweight token --name shop --role infer
  echo "callers:" >access.yaml
  flyweight token --name shop --role infer 2>>access.yaml >shop.token
  flyweight serve repository --access access.yaml

The access file begins with the line "callers:". The server reads it again when it
changes.
"""


@click.command(epilog=_EPILOG)
@click.option("--name", required=True, help="What logs and limits call the caller.")
@click.option(
    "--role",
    "roles",
    type=choice_of(Role),
    multiple=True,
    default=(Role.INFER.value,),
    show_default=True,
    help="What the caller may do; may be given several times.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def token(name: str, roles: tuple[str, ...], *, as_json: bool) -> int:
    """Make a new random token for one caller.

    The token goes to standard output, and is shown only now. The entry for the access file goes to standard
    error; it holds the token's SHA-256, from which nobody learns the token.
    """
    secret = new_token()
    entry = {"name": name, "roles": list(dict.fromkeys(roles)), "tokens_sha256": [digest_of(secret)]}
    try:
        CallerDocument.model_validate(entry)
    except ValidationError as error:
        raise click.UsageError(f"{name!r} cannot be a caller's name; it is {NAME_RULE}.") from error
    if as_json:
        click.echo(json.dumps({"token": secret, "caller": entry}, indent=2))
        return 0
    click.echo(secret)
    # JSON is YAML, with everything quoted that has to be.
    click.echo(f"  - {json.dumps(entry)}", err=True)
    return 0
