"""How a client reaches its server: deadline, retries, encryption, credentials, sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path


class Compression(Enum):
    """How messages are compressed on the wire; tensors of noise or pictures seldom gain from it."""

    NONE = "none"
    GZIP = "gzip"
    DEFLATE = "deflate"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed call is sent again, as gRPC's service config says it (gRFC A6).

    Inference changes nothing on the server, so a call may be sent again after UNAVAILABLE (a connection that
    broke, a server that restarts) and RESOURCE_EXHAUSTED (a server that sheds load). A server that answers
    with `grpc-retry-pushback-ms` decides the delay itself, or forbids the retry.

    Attributes:
        max_attempts: all attempts together, the first included, 1 to 5 (gRPC's own limit); 1 never retries.
        initial_backoff_seconds: the longest first delay; gRPC draws each delay at random around it.
        max_backoff_seconds: no delay is longer.
        backoff_multiplier: how much longer each delay is than the one before.
        throttle_tokens: retries stop when failures outnumber successes: each failure takes one of these
            tokens, and below half of them nothing is retried, so that retries never add to an outage.
        throttle_token_ratio: the share of a token that each success gives back.
    """

    max_attempts: int = 4
    initial_backoff_seconds: float = 0.1
    max_backoff_seconds: float = 2.0
    backoff_multiplier: float = 2.0
    throttle_tokens: int = 100
    throttle_token_ratio: float = 0.1


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """An encrypted channel.

    Attributes:
        ca: PEM file with the authorities to trust; the system's own when it is None.
        certificate: PEM file with the client's certificate chain, where the server asks for one.
        key: PEM file with the key of `certificate`.
        server_name: the name in the server's certificate, where it is not the one in the address.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    server_name: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything about a channel but its address.

    Attributes:
        timeout_seconds: deadline of each call that names none; None waits for ever. 30 s is longer than any
            answer worth waiting for, and short enough that a hanging server is noticed.
        retry: when a failed call is sent again.
        tls: encryption; None sends everything in the clear.
        bearer_token: sent with every call as `authorization: Bearer TOKEN`. Over a network it needs `tls`.
        metadata: sent with every call; keys in lower case.
        compression: of requests; the server decides about responses.
        max_message_bytes: the largest response that is accepted; None for protobuf's own limit of 2 GiB,
            because the caller chose the server and the model.
        keepalive_seconds: ping an idle connection this often, to notice one that is gone; None never. Servers
            close connections that ping more often than they allow (grpcio's default: every 300 s).
    """

    timeout_seconds: float | None = 30.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    tls: TlsSettings | None = None
    bearer_token: str | None = field(default=None, repr=False)
    metadata: Mapping[str, str] = field(default_factory=dict)
    compression: Compression = Compression.NONE
    max_message_bytes: int | None = None
    keepalive_seconds: float | None = None
