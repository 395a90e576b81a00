"""Bytes to protocol messages, once for all handlers."""

from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from flyweight.server.errors import InvalidRequest

AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse(kind: type[AnyMessage], body: bytes) -> AnyMessage:
    """Read a message of `kind`.

    Raises:
        InvalidRequest: the bytes are no such message.
    """
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(f"The request's bytes are not a {kind.DESCRIPTOR.full_name} message.") from error
