"""The options by which a command reaches a server."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import click

from flyweight.client.settings import Settings, TlsSettings
from flyweight.client.sync import Client

P = ParamSpec("P")
R = TypeVar("R")

_FILE = click.Path(path_type=Path, dir_okay=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a command's server is, and how to reach it."""

    url: str
    settings: Settings

    def open(self) -> Client:
        """Return a client."""
        return Client(self.url, self.settings)


def connection_options(command: Callable[Concatenate[Connection, P], R]) -> Callable[P, R]:
    """Give a command the options of a connection, and itself a `Connection` as its first argument."""

    @wraps(command)
    def with_connection(*args: P.args, **kwargs: P.kwargs) -> R:
        options: dict[str, Any] = {name: kwargs.pop(name) for name in _NAMES}
        return command(_connection(options), *args, **kwargs)

    for option in reversed(_OPTIONS):
        with_connection = option(with_connection)
    return with_connection


_NAMES = ("url", "timeout_seconds", "tls", "ca", "certificate", "key_file", "server_name", "token")
_OPTIONS = (
    click.option(
        "--url",
        default="127.0.0.1:8001",
        envvar="FLYWEIGHT_URL",
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        help="The server's gRPC address.",
    ),
    click.option(
        "--timeout",
        "timeout_seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="Deadline of each request, retries included.",
    ),
    click.option(
        "--tls", is_flag=True, help="Encrypt, trusting the system's authorities unless --ca is given."
    ),
    click.option(
        "--ca", type=_FILE, metavar="FILE", help="Encrypt, trusting the authorities in this PEM file."
    ),
    click.option("--cert", "certificate", type=_FILE, metavar="FILE", help="The client's certificate, PEM."),
    click.option("--cert-key", "key_file", type=_FILE, metavar="FILE", help="The key of --cert, PEM."),
    click.option(
        "--server-name", metavar="NAME", help="The name in the server's certificate, if not --url's."
    ),
    click.option(
        "--token",
        envvar="FLYWEIGHT_TOKEN",
        show_envvar=True,
        metavar="TOKEN",
        help="Bearer token; better given in the environment, where `ps` does not show it.",
    ),
)


def _connection(options: dict[str, Any]) -> Connection:
    wants_tls = options["tls"] or any(options[name] for name in ("ca", "certificate", "key_file"))
    tls = TlsSettings(options["ca"], options["certificate"], options["key_file"], options["server_name"])
    settings = Settings(
        timeout_seconds=options["timeout_seconds"],
        tls=tls if wants_tls else None,
        bearer_token=options["token"],
    )
    return Connection(options["url"], settings)
