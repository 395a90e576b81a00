"""What a coded file may cost whoever decodes it."""

from dataclasses import dataclass
from typing import Final

from flyweight.protos.coded.errors import CodedError

# protobuf reads no message of 2 GiB or more, so a larger model.onnx could not be loaded anyway.
LARGEST_MODEL_BYTES: Final = (1 << 31) - 1
# A weight that is coded at all takes a fraction of a bit: 4,096 bytes from one is beyond any trained network.
LARGEST_RATIO: Final = 4096
# Below this no ratio is suspicious: a small model of zeros is no attack.
FREE_BYTES: Final = 16 << 20
# The description of the pieces: a thousand tensors with tables of 256 entries take a megabyte.
LARGEST_PLAN_BYTES: Final = 32 << 20
# Pieces, and cells of pieces: each costs the decoder a table, about 0.1 ms.
MOST_PARTS: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may come out of a coded file; checked before anything is allocated.

    Attributes:
        decoded_bytes: at most so many bytes, whatever the file's own length.
        ratio: at most so many times the file's own length, where that is more than 16 MiB.
    """

    decoded_bytes: int = LARGEST_MODEL_BYTES
    ratio: int = LARGEST_RATIO

    def check(self, decoded_bytes: int, coded_bytes: int) -> None:
        """Refuse a file that says it decodes to too much.

        Raises:
            CodedError: it does.
        """
        if decoded_bytes > self.decoded_bytes:
            raise CodedError(f"it decodes to {decoded_bytes} bytes where {self.decoded_bytes} are allowed")
        if decoded_bytes > max(FREE_BYTES, self.ratio * coded_bytes):
            raise CodedError(
                f"it has {coded_bytes} bytes and says it decodes to {decoded_bytes}, over {self.ratio} times "
                "as many"
            )
