"""Services that the protocol's own file does not declare, spoken byte by byte: health and reflection.

Source: grpc/grpc-proto, grpc/health/v1/health.proto and grpc/reflection/v1/reflection.proto.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import grpc

from oip.cases import Code
from oip.target import PATIENCE_SECONDS, Answer, Target, failure

HEALTH: Final = "/grpc.health.v1.Health"
REFLECTION: Final = ("/grpc.reflection.v1.ServerReflection", "/grpc.reflection.v1alpha.ServerReflection")
SERVING: Final = b"\x08\x01"
NOT_SERVING: Final = b"\x08\x02"
_LIST_SERVICES: Final = b"\x3a\x00"


def length_delimited(field: int, data: bytes) -> bytes:
    """Return a protobuf field of bytes shorter than 128."""
    assert len(data) < 128
    return bytes([field << 3 | 2, len(data)]) + data


def check_health(target: Target, service: str) -> Answer:
    """Call Health.Check; the response is its bytes."""
    try:
        data = target.channel.unary_unary(f"{HEALTH}/Check")(
            length_delimited(1, service.encode()), timeout=PATIENCE_SECONDS
        )
    except grpc.RpcError as error:
        return failure(error)
    return Answer(Code.OK, response=data)


def watch_health(target: Target, service: str) -> Any:
    """Open Health.Watch."""
    return target.channel.unary_stream(f"{HEALTH}/Watch")(
        length_delimited(1, service.encode()), timeout=PATIENCE_SECONDS
    )


def reflect(target: Target, service: str, *requests: bytes) -> list[bytes]:
    """Return what ServerReflectionInfo answers to `requests`.

    Raises:
        grpc.RpcError: the stream ended with another status than OK.
    """
    call = target.channel.stream_stream(f"{service}/ServerReflectionInfo")
    return list(call(iter(requests), timeout=PATIENCE_SECONDS))


def list_services(target: Target, service: str) -> bytes:
    """Return the bytes of reflection's list of services."""
    return b"".join(reflect(target, service, _LIST_SERVICES))


def _probe_stream(target: Target) -> grpc.StatusCode:
    return _status(lambda: list(target.stream(())))


def _probe_reflection(target: Target) -> grpc.StatusCode:
    codes = [_status(partial(list_services, target, name)) for name in REFLECTION]
    return Code.OK if Code.OK in codes else codes[0]


def _status(ask: Callable[[], object]) -> grpc.StatusCode:
    try:
        ask()
    except grpc.RpcError as error:
        return failure(error).code
    return Code.OK


# What stands in for an announcement: an answer other than UNIMPLEMENTED.
PROBES: Final[dict[str, Callable[[Target], grpc.StatusCode]]] = {
    "streaming": _probe_stream,
    "health": lambda target: check_health(target, "").code,
    "reflection": _probe_reflection,
}
