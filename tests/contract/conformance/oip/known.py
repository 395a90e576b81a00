"""What flyweight's own server is known to fall short of, and why: told in its results, and no surprise in CI.

Read only where the suite starts flyweight itself. A case of this list that passes is a failure, so that the
list stays true; in the written results each is what it is: failed.
"""

from typing import Final

KNOWN: Final = {
    "contents/bytes-not-text/raw": "onnxruntime's strings are UTF-8 text",
    "contents/bytes-not-text/typed": "onnxruntime's strings are UTF-8 text",
    "wire/unknown-compression": "grpc-core answers INTERNAL to a grpc-encoding it cannot parse",
    "wire/content-type": "grpc-core takes any content-type",
}
