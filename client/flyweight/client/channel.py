"""From settings to what gRPC takes: options, service config, credentials, metadata.

No I/O but reading PEM files.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import grpc

from flyweight.client.errors import InvalidRequest
from flyweight.client.settings import Compression, RetryPolicy, Settings, TlsSettings

SERVICE: Final = "inference.GRPCInferenceService"

# A request larger than gRPC's retry buffer (256 KiB unless told) is never sent again; one of 16 MiB holds a
# batch of 27 pictures of 224x224x3 floats.
_RETRY_BUFFER_BYTES: Final = 16 << 20

# A server that restarts is back within a second, and retries only help when the channel has reconnected by
# then; gRPC's own first wait is 1 s and its longest 120 s. Its "min" is left alone: by that name it is also
# the time that an attempt to connect gets, which on a busy machine may take longer than any wait.
_FIRST_RECONNECT_MS: Final = 100
_LONGEST_RECONNECT_MS: Final = 5000

_SCHEMES: Final = ("dns", "ipv4", "ipv6", "unix", "unix-abstract", "vsock", "xds")
_HOST_AND_PORT: Final = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^\[\]:/@\s]+):(\d{1,5})")
_LOOPBACK: Final = ("localhost", "[::1]")

Options = list[tuple[str, str | int]]

COMPRESSIONS: Final = {
    Compression.NONE: grpc.Compression.NoCompression,
    Compression.GZIP: grpc.Compression.Gzip,
    Compression.DEFLATE: grpc.Compression.Deflate,
}


def check_address(address: str) -> str:
    """Return `address`, HOST:PORT or a gRPC name such as unix:/path.

    Raises:
        InvalidRequest: it is neither.
    """
    if address.split(":", 1)[0] in _SCHEMES and ":" in address and not _HOST_AND_PORT.fullmatch(address):
        return address
    if "://" in address:
        bare = address.split("://", 1)[1].rstrip("/")
        raise InvalidRequest(f"the address {address!r} has a scheme; gRPC takes HOST:PORT, try {bare!r}.")
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None or int(match[2]) > 65535:
        raise InvalidRequest(f"the address {address!r} is not HOST:PORT, 127.0.0.1:8001 for example.")
    return address


def options(settings: Settings) -> Options:
    """Return the options of a channel."""
    largest = -1 if settings.max_message_bytes is None else settings.max_message_bytes
    found: Options = [
        ("grpc.max_receive_message_length", largest),
        # What may be sent is the server's to say.
        ("grpc.max_send_message_length", -1),
        ("grpc.enable_retries", int(settings.retry.max_attempts > 1)),
        ("grpc.per_rpc_retry_buffer_size", _RETRY_BUFFER_BYTES),
        ("grpc.service_config", service_config(settings.retry)),
        ("grpc.initial_reconnect_backoff_ms", _FIRST_RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", _LONGEST_RECONNECT_MS),
        ("grpc.primary_user_agent", "flyweight-client"),
    ]
    if settings.keepalive_seconds is not None:
        found.append(("grpc.keepalive_time_ms", round(settings.keepalive_seconds * 1000)))
        found.append(("grpc.keepalive_permit_without_calls", 1))
    if settings.tls is not None and settings.tls.server_name is not None:
        found.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return found


def service_config(retry: RetryPolicy) -> str:
    """Return gRPC's service config (gRFC A6) for a retry policy, as JSON.

    Raises:
        InvalidRequest: the policy is one that gRPC does not take.
    """
    if not 1 <= retry.max_attempts <= 5:
        raise InvalidRequest(f"max_attempts is {retry.max_attempts}; gRPC makes 1 to 5 attempts.")
    if min(retry.initial_backoff_seconds, retry.max_backoff_seconds, retry.backoff_multiplier) <= 0:
        raise InvalidRequest(f"the back-off of {retry} has a part that is not positive.")
    method: dict[str, object] = {"name": [{"service": SERVICE}]}
    if retry.max_attempts > 1:
        method["retryPolicy"] = {
            "maxAttempts": retry.max_attempts,
            "initialBackoff": f"{retry.initial_backoff_seconds:.3f}s",
            "maxBackoff": f"{retry.max_backoff_seconds:.3f}s",
            "backoffMultiplier": retry.backoff_multiplier,
            "retryableStatusCodes": ["UNAVAILABLE", "RESOURCE_EXHAUSTED"],
        }
    throttling = {"maxTokens": retry.throttle_tokens, "tokenRatio": retry.throttle_token_ratio}
    return json.dumps({"methodConfig": [method], "retryThrottling": throttling})


def credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    """Return the credentials of an encrypted channel.

    Raises:
        InvalidRequest: a file cannot be read, or a certificate comes without its key.
    """
    if (tls.certificate is None) != (tls.key is None):
        raise InvalidRequest("a client certificate needs its key, and a key its certificate; give both.")
    return grpc.ssl_channel_credentials(
        root_certificates=_read(tls.ca), private_key=_read(tls.key), certificate_chain=_read(tls.certificate)
    )


def _read(path: Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}); give a PEM file.") from error


def metadata(address: str, settings: Settings) -> Sequence[tuple[str, str]]:
    """Return what goes with every call.

    Raises:
        InvalidRequest: a bearer token would cross a network in the clear.
    """
    found = [(key.lower(), value) for key, value in settings.metadata.items()]
    if settings.bearer_token is not None:
        if settings.tls is None and not _is_local(address):
            raise InvalidRequest(
                f"the bearer token would go to {address} in the clear; give tls=TlsSettings(...), or, where "
                "something else encrypts the way, the header itself in `metadata`."
            )
        found.append(("authorization", f"Bearer {settings.bearer_token}"))
    return tuple(found)


def _is_local(address: str) -> bool:
    host = address.rpartition(":")[0]
    return host in _LOOPBACK or host.startswith("127.") or address.startswith(("unix:", "unix-abstract:"))
