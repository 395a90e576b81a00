"""The RPCs that are declared and not there yet: each says so in a sentence."""

from flyweight.server.errors import Unsupported
from flyweight.server.rpc.call import Call, Handler, Stream, StreamHandler, StreamReader


def unsupported(path: str) -> Handler:
    """Return a handler that refuses the RPC `path` ("/package.Service/Method")."""
    _, service, method = path.split("/")

    def handler(_body: bytes, _call: Call) -> bytes:
        raise Unsupported(f"flyweight does not implement {method} of {service}.")

    return handler


def refused_stream(path: str) -> StreamHandler:
    """Return a handler that refuses the streaming RPC `path`."""
    _, service, method = path.split("/")

    def handler(_call: Call, _stream: Stream) -> StreamReader:
        raise Unsupported(f"flyweight does not implement {method} of {service}.")

    return handler
