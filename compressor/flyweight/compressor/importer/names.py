"""Readable names for the module's layers, from the names that exporters leave in a graph."""

import keyword
import re
from collections.abc import Collection
from typing import Final

from torch import fx

# What exporters call a tensor that has no name of its own: val_12, onnx::MatMul_317, 317, t_5, _v_12.
_INVENTED: Final = re.compile(r"(onnx::[A-Za-z]+_)?\d+|_?(val|v|t|tensor)_?\d*", re.ASCII)
_ROLES: Final = re.compile(
    r"[._/](weight|bias|gamma|beta|scale|kernel|w|b|running_mean|running_var|mean|var)(_quantized|_\d+)?$",
    re.IGNORECASE,
)
_TAKEN: Final = frozenset(dir(fx.GraphModule))


def identifier(name: str) -> str:
    """Return a name that Python accepts for a variable."""
    cleaned = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "value"
    if cleaned[0].isdigit() or keyword.iskeyword(cleaned):
        return f"_{cleaned}"
    return cleaned


def layer_path(initializers: Collection[str], node: str, kind: str) -> str:
    """Return a dotted path for a layer: of its parameters if they have one, else of its node, else its kind.

    Args:
        initializers: the names of its parameters in the graph.
        node: the name of its node, or of its output.
        kind: what the layer is, in a word.
    """
    for name in initializers:
        if name and _ROLES.search(name):
            return dotted(_ROLES.sub("", name))
    parts = [part for part in node.split("/") if part]
    # TorchScript's exporter names nodes /encoder/layer.0/query/MatMul: the last part is the operator.
    if len(parts) > 1 and node.startswith("/"):
        parts = parts[:-1]
    path = ".".join(parts)
    return dotted(path) if path and not _INVENTED.fullmatch(path) else kind


def parameter_path(name: str) -> str:
    """Return a dotted path for a lone parameter or constant."""
    return dotted(name) if name and not _INVENTED.fullmatch(name) else "constant"


def dotted(name: str) -> str:
    """Return a name as a path of attributes that torch accepts; numbers stay, as in Sequential's children."""
    parts = [re.sub(r"\W+", "_", part, flags=re.ASCII).strip("_") for part in re.split(r"[./]+|::", name)]
    kept = [f"{part}_" if part in _TAKEN or keyword.iskeyword(part) else part for part in parts if part]
    return ".".join(kept) or "value"


class Names:
    """The attribute paths of one module: each given once, none inside a layer."""

    def __init__(self) -> None:
        self._leaves: set[str] = set()
        self._folders: set[str] = set()

    def claim(self, path: str) -> str:
        """Return `path`, or with a number after it when it is taken, or would lie inside a layer."""
        parts = path.split(".")
        for depth in range(1, len(parts)):
            if ".".join(parts[:depth]) in self._leaves:
                return self.claim("_".join(parts))
        chosen, number = path, 1
        while chosen in self._leaves or chosen in self._folders:
            number += 1
            chosen = f"{path}_{number}"
        self._leaves.add(chosen)
        chosen_parts = chosen.split(".")
        self._folders.update(".".join(chosen_parts[:depth]) for depth in range(1, len(chosen_parts)))
        return chosen
