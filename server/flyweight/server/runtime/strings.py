"""String tensors: the protocol carries bytes, onnxruntime takes and gives text."""

import numpy as np

from flyweight.server.errors import InvalidRequest
from flyweight.server.runtime.seam import Array


def to_text(name: str, array: Array) -> Array:
    """Return an object array of str of the same shape as an object array of UTF-8 bytes.

    Raises:
        InvalidRequest: an element is not UTF-8.
    """
    text = np.empty(array.shape, dtype=object)
    flat = text.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        try:
            flat[index] = element if isinstance(element, str) else bytes(element).decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"The input {name!r} holds bytes that are not UTF-8 text (element {index}); "
                "models take strings as UTF-8."
            ) from error
    return text


def to_bytes(array: Array) -> Array:
    """Return an object array of UTF-8 bytes of the same shape as an object array of str."""
    encoded = np.empty(array.shape, dtype=object)
    flat = encoded.reshape(-1)
    for index, element in enumerate(array.reshape(-1)):
        flat[index] = str(element).encode("utf-8")
    return encoded
