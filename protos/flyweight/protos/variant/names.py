"""What models, variants and the files in their folders may be called."""

import re
from pathlib import PurePosixPath
from typing import Final

from flyweight.protos.errors import RepositoryError

MODEL_FILE: Final = "model.onnx"
# Stands in for the model's file (flyweight.protos.coded); where both are there, the plain one is served.
CODED_SUFFIX: Final = ".fw"
CODED_FILE: Final = MODEL_FILE + CODED_SUFFIX

# A name is a folder, a metric label and a word on the wire: what all three take without quoting.
# No leading dot: hidden folders hold what is still being published. 128 leaves room for any suffix in a
# file name of 255 bytes.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def is_valid_name(name: str) -> bool:
    """Tell whether `name` may name a model or a variant."""
    return _NAME.fullmatch(name) is not None


def require_valid_name(name: str, what: str) -> str:
    """Return `name`, or raise.

    Raises:
        RepositoryError: `name` cannot name a `what` ("model" or "variant").
    """
    if not is_valid_name(name):
        raise RepositoryError(
            f"{name!r} cannot name a {what}: use 1 to 128 letters, digits, '.', '_' or '-', "
            "the first a letter or a digit."
        )
    return name


def is_inside_folder(path: str) -> bool:
    """Tell whether a relative path, as a manifest writes it, stays inside its folder."""
    parts = PurePosixPath(path).parts
    # No file has a name with a zero byte, and looking for one is an error of its own kind.
    is_plain = not any(sign in path for sign in "\\\0")
    return bool(parts) and is_plain and not path.startswith("/") and ".." not in parts
