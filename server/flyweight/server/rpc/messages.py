"""Bytes to protocol messages and sentences to what a message can hold, once for all handlers."""

from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from flyweight.server.errors import InvalidRequest
from flyweight.server.rpc.call import Body

# A status travels in HTTP/2 trailers, of which gRPC takes 8 KiB unless told otherwise, percent-encoded: three
# bytes for each that is not plain ASCII. Longer ones reach the caller as another status without a word.
_LONGEST_SENTENCE_BYTES: Final = 2048
# Enough of the end to keep what the sentence advises.
_LAST_BYTES: Final = 512
_CUT: Final = " … "

AnyMessage = TypeVar("AnyMessage", bound=Message)


def parse(kind: type[AnyMessage], body: Body) -> AnyMessage:
    """Read a message of `kind`.

    Raises:
        InvalidRequest: the bytes are no such message.
    """
    try:
        # It takes any bytes; its stubs know one type of them.
        return kind.FromString(body)  # type: ignore[arg-type]
    except DecodeError as error:
        raise InvalidRequest(f"The request's bytes are not a {kind.DESCRIPTOR.full_name} message.") from error


def sendable(sentence: str) -> str:
    """Return a sentence as it can be sent: cut in the middle when it is too long, and always UTF-8.

    A file's name need not be UTF-8; what of it is not comes as Python shows it.
    """
    data = sentence.encode("utf-8", "backslashreplace")
    if len(data) <= _LONGEST_SENTENCE_BYTES:
        return data.decode()
    first_bytes = _LONGEST_SENTENCE_BYTES - _LAST_BYTES - len(_CUT.encode())
    head, tail = data[:first_bytes], data[-_LAST_BYTES:]
    return head.decode("utf-8", "ignore") + _CUT + tail.decode("utf-8", "ignore")
