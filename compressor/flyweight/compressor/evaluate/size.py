"""What a variant weighs: on disk, on the wire, and in numbers."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flyweight.compressor.evaluate.zeros import count_zeros
from flyweight.compressor.onnx_model import count_parameters, external_files, load_graph

_CHUNK_BYTES: Final = 1 << 20
# What gzip, HTTP and container registries use when nobody asks for another.
_LEVEL: Final = 6


@dataclass(frozen=True, slots=True)
class Size:
    """How big a variant is.

    Attributes:
        file_bytes: of what is published, with external data.
        compressed_bytes: of the same after deflate at level 6, as an image layer or a download has it.
        parameters: weights in the graph that runs.
        nonzero_parameters: of them, those that are not zero; quantized ones count as what they stand for.
    """

    file_bytes: int
    compressed_bytes: int
    parameters: int
    nonzero_parameters: int

    @property
    def bits_per_weight(self) -> float | None:
        """Bits of the published file for each weight, graph and codebooks included; None without weights."""
        return 8 * self.file_bytes / self.parameters if self.parameters else None


def measure_size(path: Path, stored: Path | None = None) -> Size:
    """Measure the ONNX model at `path`, which is published as `stored` when that is another file.

    Raises:
        ModelError: the model cannot be read.
    """
    model = load_graph(path, weights=False)
    files = (path, *external_files(path, model)) if stored is None else (stored,)
    parameters = count_parameters(model)
    return Size(
        file_bytes=sum(file.stat().st_size for file in files),
        compressed_bytes=sum(deflated_bytes(file) for file in files),
        parameters=parameters,
        nonzero_parameters=max(0, parameters - count_zeros(model, path.parent)),
    )


def deflated_bytes(path: Path) -> int:
    """Return the length of a file's deflate stream (RFC 1951, wrapped as in RFC 1950), read in pieces."""
    packer, total = zlib.compressobj(_LEVEL), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            total += len(packer.compress(chunk))
    return total + len(packer.flush())
