"""What the person who starts a server may decide, with the defaults and why they are what they are."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from flyweight.server.errors import StartError
from flyweight.server.runtime.cores import available_cores

MEGABYTE: Final = 1 << 20


class ModelControl(StrEnum):
    """Who decides what is loaded: the repository's contents, or RepositoryModelLoad and Unload."""

    POLL = "poll"
    EXPLICIT = "explicit"


class LogFormat(StrEnum):
    """How log lines look on standard error."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's certificate chain and key, and the authority that clients must be signed by."""

    certificate: Path
    key: Path
    client_authority: Path | None = None


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of one server; the command line fills them in.

    `threads` is the runtime's threads inside an operator; 0 leaves it to the variants' manifests.
    `max_in_flight` requests are accepted at a time, of which `max_running` are in a session and the rest wait
    for their turn; the next one is refused. A port of 0 takes any free one.
    """

    repository: Path
    host: str = "127.0.0.1"
    port: int = 8001
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8002
    poll_seconds: float = 0.5
    max_in_flight: int = 64
    max_running: int = 0
    threads: int = 0
    model_control: ModelControl = ModelControl.POLL
    drain_seconds: float = 30.0
    shutdown_delay_seconds: float = 0.0
    strict: bool = False
    # 64 MiB is a batch of a hundred 224 x 224 colour images in FP32, and sixteen times gRPC's own default.
    # A limit there must be: max_in_flight times this is the memory that callers can make the server hold.
    max_message_bytes: int = 64 * MEGABYTE
    tls: TlsFiles | None = None
    allow_control: bool = True
    log_format: LogFormat = LogFormat.TEXT

    def runs_at_once(self) -> int:
        """Return how many requests may be in a session at one time.

        One for each processor that can run it: more would take turns on them and all end later. Decoding and
        encoding are done outside of a turn.
        """
        return self.max_running or available_cores()


def read_pem(path: Path, what: str) -> bytes:
    """Read a PEM file named on the command line.

    Raises:
        StartError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise StartError(
            f"{path}, the {what}, cannot be read ({error.strerror}); check the path and its permissions."
        ) from error
