"""What flyweight's own server is known to fall short of, and why: told in its results, and no surprise in CI.

Read only where the suite starts flyweight itself. A case of this list that passes is a failure, so that the
list stays true; in the written results each is what it is: failed.
"""

from collections.abc import Mapping
from typing import Final

_ALWAYS: Final = {
    "contents/bytes-not-text/raw": "onnxruntime's strings are UTF-8 text",
    "contents/bytes-not-text/typed": "onnxruntime's strings are UTF-8 text",
}
_OVER_GRPCIO: Final = {
    "wire/unknown-compression": "grpc-core answers INTERNAL to a grpc-encoding it cannot parse",
    "wire/content-type": "grpc-core takes any content-type",
}


def known_shortfalls(transport: str) -> Mapping[str, str]:
    """Return the cases that flyweight fails over a transport, with the reasons."""
    return _ALWAYS if transport == "wire" else _ALWAYS | _OVER_GRPCIO
