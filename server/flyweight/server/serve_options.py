"""The options of `flyweight serve` about callers, connections, limits and logs, and their headings.

Their defaults are the settings' own, which say why they are what they are.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from flyweight.server.settings import (
    MEGABYTE,
    Compression,
    ConnectionSettings,
    LogFormat,
    LogLevel,
    RequestLimits,
    Transport,
)

Command = TypeVar("Command", bound=Callable[..., Any])

_LONGEST_SECONDS: Final = 86_400.0
_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_CONNECTIONS: Final = ConnectionSettings()
_LIMITS: Final = RequestLimits()

# Options that are given in megabytes, and what the settings have in bytes.
_MEGABYTES: Final = {
    "max_message_megabytes": "max_message_bytes",
    "max_tensor_megabytes": "max_tensor_bytes",
    "max_string_megabytes": "max_string_bytes",
    "upload_megabytes": "max_upload_bytes",
    "memory_limit_megabytes": "memory_limit_bytes",
    "response_cache_megabytes": "response_cache_bytes",
}

SECTIONS: Final[Mapping[str, Sequence[str]]] = {
    "Addresses": ("--host", "--port", "--metrics-host", "--metrics-port", "--triton-metrics"),
    "Models": (
        "--runtime",
        "--session-entry",
        "--model-control",
        "--poll-seconds",
        "--watch",
        "--load-threads",
        "--memory-guard",
        "--memory-limit-megabytes",
        "--upload-folder",
        "--upload-megabytes",
        "--strict",
        "--compat",
        "--measure-memory",
    ),
    "Work": (
        "--max-in-flight",
        "--max-in-flight-per-client",
        "--max-running",
        "--threads",
        "--shared-memory",
        "--response-cache-megabytes",
    ),
    "Start and stop": ("--drain-seconds", "--shutdown-delay-seconds"),
    "Callers": ("--access", "--allow-control", "--tls-cert", "--tls-key", "--tls-client-ca"),
    "Sizes": (
        "--max-message-megabytes",
        "--max-tensor-megabytes",
        "--max-string-megabytes",
        "--max-tensors",
        "--max-metadata-bytes",
    ),
    "Connections": (
        "--max-connections",
        "--max-streams",
        "--handshake-seconds",
        "--keepalive-seconds",
        "--keepalive-timeout-seconds",
        "--min-ping-seconds",
        "--max-connection-idle-seconds",
        "--max-connection-age-seconds",
        "--max-connection-age-grace-seconds",
        "--transport",
        "--compression",
    ),
    "Logs": ("--log-format", "--log-level", "--access-log", "--trace-folder"),
}


class Seconds(click.FloatRange):
    """Seconds, of which there is a number that clocks can wait for: neither NaN nor more than a day."""

    name = "seconds"

    def __init__(self, least: float, *, min_open: bool = False) -> None:
        super().__init__(least, _LONGEST_SECONDS, min_open=min_open)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number of seconds; NaN compares with nothing, and so would pass as in range."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


def read_entries(
    ctx: click.Context | None, param: click.Parameter | None, values: tuple[str, ...]
) -> dict[str, str]:
    """Return settings given as KEY=VALUE, of which the value may hold "=" too; an option's callback.

    Raises:
        click.BadParameter: one is not of this form.
    """
    entries: dict[str, str] = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{text!r} is not of the form KEY=VALUE.", ctx, param)
        entries[key] = value
    return entries


def choice_of(kind: type[StrEnum]) -> "click.Choice[str]":
    """Return the type of an option that takes one of an enumeration's values, as they are written."""
    return click.Choice([member.value for member in kind], case_sensitive=False)


def _choice(name: str, kind: type[StrEnum], default: StrEnum, sentence: str) -> Callable[[Any], Any]:
    """Return an option that takes one of an enumeration's values."""
    return click.option(name, type=choice_of(kind), default=default.value, show_default=True, help=sentence)


def _all(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return several decorators as one, in the order in which they would stand."""

    def decorate(command: Command) -> Command:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate


def _seconds(name: str, text: str, *, none: str = "", least: float = 0.0) -> Callable[[Any], Any]:
    default = getattr(_CONNECTIONS, name.removeprefix("--").replace("-", "_"))
    return click.option(
        name,
        type=Seconds(least),
        default=default,
        show_default=default > 0,
        help=f"{text}  [default: {none}]" if not default else text,
    )


caller_options = _all(
    click.option(
        "--access",
        type=_FILE,
        help="File that names callers, by token or certificate, and their roles; 'flyweight token' makes "
        "tokens. Read again when it changes.  [default: everybody may call]",
    ),
    click.option(
        "--allow-control/--no-allow-control",
        default=None,
        help="Whether callers may load, unload and steer.  [default: if --access tells who they are, or only "
        "this machine can call]",
    ),
    click.option(
        "--tls-cert",
        type=_FILE,
        help="Certificate chain (PEM); gRPC is then served over TLS only. Read again when it changes, as are "
        "the other two.",
    ),
    click.option("--tls-key", type=_FILE, help="The certificate's key (PEM)."),
    click.option(
        "--tls-client-ca", type=_FILE, help="Authority (PEM) that clients' certificates must come from."
    ),
    click.option(
        "--max-in-flight-per-client",
        type=click.IntRange(0, 10_000),
        default=0,
        help="Inferences held for one caller, who is told by --access, certificate or address.  [default: no "
        "limit of its own]",
    ),
)

size_options = _all(
    click.option(
        "--max-message-megabytes",
        type=click.IntRange(1, 2047),
        default=64,
        show_default=True,
        help="The largest request that is read; --max-in-flight of them must fit into memory.",
    ),
    click.option(
        "--max-tensor-megabytes",
        type=click.IntRange(0),
        default=_LIMITS.max_tensor_bytes // MEGABYTE,
        help="The largest tensor, also in shared memory.  [default: as large as a message]",
    ),
    click.option(
        "--max-string-megabytes",
        type=click.IntRange(1, 2047),
        default=_LIMITS.max_string_bytes // MEGABYTE,
        show_default=True,
        help="The longest element of a BYTES tensor.",
    ),
    click.option(
        "--max-tensors",
        type=click.IntRange(1),
        default=_LIMITS.max_tensors,
        show_default=True,
        help="Inputs of one request.",
    ),
    click.option(
        "--max-metadata-bytes",
        type=click.IntRange(4096, 1 << 20),
        default=_CONNECTIONS.max_metadata_bytes,
        show_default=True,
        help="The metadata of one call, as HTTP/2 counts it; one with more is refused.",
    ),
)

connection_options = _all(
    click.option(
        "--max-connections",
        type=click.IntRange(0),
        default=_CONNECTIONS.max_connections,
        help="Connections at one time; one more is closed.  [default: half of the files that the process may "
        "open]",
    ),
    click.option(
        "--max-streams",
        type=click.IntRange(1),
        default=_CONNECTIONS.max_streams,
        show_default=True,
        help="Streams of one method that are open at one time; one more is refused. Each may hold one "
        "message that has not come whole.",
    ),
    _seconds(
        "--handshake-seconds",
        "How long a client may take to begin to speak.",
        least=0.1,
    ),
    _seconds(
        "--keepalive-seconds",
        "A client that was silent for so long is asked whether it is there; 0 never.",
    ),
    _seconds(
        "--keepalive-timeout-seconds",
        "How long it may take to answer that before its connection is closed.",
        least=0.1,
    ),
    _seconds(
        "--min-ping-seconds",
        "Clients that ask more often than that are closed out.",
        least=0.1,
    ),
    _seconds(
        "--max-connection-idle-seconds",
        "A connection without a call for so long is closed.",
        none="never",
    ),
    _seconds(
        "--max-connection-age-seconds",
        "Clients are asked to connect anew after that, give or take a tenth, and so find new replicas behind "
        "a balancer of connections.",
        none="never",
    ),
    _seconds(
        "--max-connection-age-grace-seconds",
        "How long calls may then go on; 0 for as long as they take.",
    ),
    _choice(
        "--transport",
        Transport,
        Transport.WIRE,
        "What speaks gRPC: wire, this project's own, or grpcio, gRPC's C core, which is slower.",
    ),
    _choice(
        "--compression",
        Compression,
        _CONNECTIONS.compression,
        "How responses are compressed. Compressed requests are always read.",
    ),
)

log_options = _all(
    _choice("--log-format", LogFormat, LogFormat.TEXT, "How log lines look."),
    _choice("--log-level", LogLevel, LogLevel.INFO, "The least that is logged."),
    click.option("--access-log", is_flag=True, help="Log a line for each call: who, what, how long."),
)


def nest(options: dict[str, object]) -> None:
    """Put options where the settings have them, in the units that they have there.

    Raises:
        click.UsageError: options contradict each other.
    """
    _nest_tls(options)
    for option, setting in _MEGABYTES.items():
        megabytes = options.pop(option)
        assert isinstance(megabytes, int)
        options[setting] = megabytes * MEGABYTE
    for name, kind in (("connections", ConnectionSettings), ("limits", RequestLimits)):
        options[name] = {field.name: options.pop(field.name) for field in fields(kind)}
    options["session_entries"] = options.pop("session_entry")
    port = options["port"]
    if port and port == options["metrics_port"] and options["host"] == options["metrics_host"]:
        raise click.UsageError(f"gRPC and metrics cannot share port {port}; give another --metrics-port.")


def _nest_tls(options: dict[str, object]) -> None:
    certificate, key = options.pop("tls_cert"), options.pop("tls_key")
    authority = options.pop("tls_client_ca")
    if (certificate is None) != (key is None):
        raise click.UsageError("Give --tls-cert and --tls-key together.")
    if authority is not None and certificate is None:
        raise click.UsageError("Give --tls-client-ca together with --tls-cert and --tls-key.")
    if certificate is not None:
        options["tls"] = {"certificate": certificate, "key": key, "client_authority": authority}
