"""What the person who starts a server may decide, with the defaults and why they are what they are."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from flyweight.server.addresses import is_unix
from flyweight.server.errors import StartError
from flyweight.server.runtime.cores import available_cores
from flyweight.server.runtime.kinds import RuntimeKind

MEGABYTE: Final = 1 << 20


class ModelControl(StrEnum):
    """Who decides what is loaded: the repository's contents, or RepositoryModelLoad and Unload."""

    POLL = "poll"
    EXPLICIT = "explicit"


class LogFormat(StrEnum):
    """How log lines look on standard error."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Compat(StrEnum):
    """Whose status codes and messages are answered: our own, or Triton's where they differ."""

    NONE = "none"
    TRITON = "triton"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the server's certificate chain and key, and the authority that clients must be signed by."""

    certificate: Path
    key: Path
    client_authority: Path | None = None


class Compression(StrEnum):
    """How responses are compressed; requests may be compressed in any way that gRPC knows."""

    NONE = "none"
    GZIP = "gzip"


class Transport(StrEnum):
    """What speaks gRPC: the library of that name, or this project's own HTTP/2."""

    GRPCIO = "grpcio"
    WIRE = "wire"


@dataclass(frozen=True, slots=True)
class ConnectionSettings:
    """What connections may cost, and how long they are kept; gRFC A8 and A9 describe keepalive and age.

    0 is no limit, but for `max_connections`: half of the files that the process may open, the other half
    being for models, workers and whatever else needs one.
    """

    max_connections: int = 0
    # Of one method. Each may hold a message that has not come whole, so this times the largest message is
    # memory that callers can make the server hold; four times as many as there are requests inside.
    max_streams: int = 256
    # gRPC's own hard limit. Its soft one, between which and this a request fails now and then, is not used.
    max_metadata_bytes: int = 16 * 1024
    # From accept to the client's HTTP/2 settings: some round trips and a signature. gRPC waits two minutes,
    # in which whoever opens sockets and sends nothing can fill the place with them.
    handshake_seconds: float = 20.0
    # Balancers forget idle connections after a minute or more; a client that died is noticed in this plus the
    # time-out, and not after gRPC's two hours, while its health watch or stream is held for it.
    keepalive_seconds: float = 30.0
    keepalive_timeout_seconds: float = 20.0
    # Clients may ask for ten seconds and no less (gRFC A8). Half of it, so that no ping is cut off for
    # being a little early; gRPC would cut off those that ping more often than every five minutes.
    min_ping_seconds: float = 5.0
    max_connection_idle_seconds: float = 0.0
    max_connection_age_seconds: float = 0.0
    max_connection_age_grace_seconds: float = 60.0
    # Tensors of floats shrink little, and a network in one building carries them faster than they are packed.
    compression: Compression = Compression.NONE


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """How large the parts of one request may be.

    A `max_tensor_bytes` of 0 is the size of the largest message. It matters where tensors do not travel in
    messages, but in shared memory, or grow when they are read.
    """

    max_tensor_bytes: int = 0
    # An encoded image or a document, with room; no model reads a larger one at once.
    max_string_bytes: int = 16 * MEGABYTE
    # A language model with a cache for each of its layers has some hundreds of inputs.
    max_tensors: int = 1024


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The settings of one server; the command line fills them in.

    `threads` is the runtime's threads inside an operator; 0 leaves it to the variants' manifests.
    `max_in_flight` requests are accepted at a time, of which `max_running` are in a session and the rest wait
    for their turn; the next one is refused. A port of 0 takes any free one; a Unix socket, which is a host of
    "unix:/path", has none. `allow_control` of None leaves it to who can reach the server: see
    `control_is_allowed`.
    """

    repository: Path
    host: str = "127.0.0.1"
    port: int = 8001
    metrics_host: str = "127.0.0.1"
    metrics_port: int = 8002
    poll_seconds: float = 0.5
    watch: bool = True
    load_threads: int = 0
    # Uploads come with RepositoryModelLoad; a gigabyte is a few large models, and a bound for a full disk.
    upload_folder: Path | None = None
    max_upload_bytes: int = 1024 * MEGABYTE
    # A load that does not fit ends the whole server, and with it what others are served.
    memory_guard: bool = True
    memory_limit_bytes: int = 0
    max_in_flight: int = 64
    max_running: int = 0
    threads: int = 0
    transport: Transport = Transport.WIRE
    # Inline: a hop to another process costs more than a small model does.
    runtime: RuntimeKind = RuntimeKind.INLINE
    # Of onnxruntime, for every variant, in the place of what the repository says.
    session_entries: Mapping[str, str] = field(default_factory=dict[str, str])
    # On: 0.3 s of processor time that nobody else wants for each new variant. Only of the inline runtime.
    measure_memory: bool = True
    # On: dashboards made for Triton show something, and a scrape is a fifth longer.
    triton_metrics: bool = True
    model_control: ModelControl = ModelControl.POLL
    drain_seconds: float = 30.0
    shutdown_delay_seconds: float = 0.0
    strict: bool = False
    # 64 MiB is a batch of a hundred 224 x 224 colour images in FP32, and sixteen times gRPC's own default.
    # A limit there must be: max_in_flight times this is the memory that callers can make the server hold.
    max_message_bytes: int = 64 * MEGABYTE
    # Answers of a classifier take some hundreds of bytes, so this is a hundred thousand of them; it is only
    # used for models whose config.pbtxt asks for a response_cache, and 0 is off.
    response_cache_bytes: int = 64 * MEGABYTE
    tls: TlsFiles | None = None
    # Who may call, by token or certificate; without it everybody may.
    access: Path | None = None
    allow_control: bool | None = None
    # Off: behind a proxy all callers have one address, and would share one limit.
    max_in_flight_per_client: int = 0
    connections: ConnectionSettings = ConnectionSettings()
    limits: RequestLimits = RequestLimits()
    # Off: whoever may call could read and write any shared memory that the server's user may.
    shared_memory: bool = False
    # Where traces are written; without it no caller can switch tracing on.
    trace_folder: Path | None = None
    compat: Compat = Compat.NONE
    log_format: LogFormat = LogFormat.TEXT
    log_level: LogLevel = LogLevel.INFO
    # Off: it costs a line for each request.
    access_log: bool = False

    def loads_at_once(self) -> int:
        """Return how many variants may be loaded at one time.

        Half of the processors, for building a session keeps one busy and the others go on answering; at
        least 2, so that a small variant does not wait for a large one; at most 4, for each holds its peak of
        memory.
        """
        return self.load_threads or min(4, max(2, available_cores() // 2))

    def runs_at_once(self) -> int:
        """Return how many requests may be in a session at one time.

        One for each processor that can run it: more would take turns on them and all end later. Decoding and
        encoding are done outside of a turn.
        """
        return self.max_running or available_cores()

    def control_is_allowed(self) -> bool:
        """Return whether callers may load, unload and steer.

        Unless it was said: where only this machine can call, or where the server knows who calls.
        """
        if self.allow_control is not None:
            return self.allow_control
        return self.access is not None or is_loopback(self.host)

    def max_tensor_bytes(self) -> int:
        """Return how large one tensor of a request may be."""
        return self.limits.max_tensor_bytes or self.max_message_bytes


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address; names other than localhost are not looked up."""
    if is_unix(host):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
