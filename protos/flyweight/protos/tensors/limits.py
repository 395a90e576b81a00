"""What a message may hold at most, for those who read messages of strangers."""

import sys
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class TensorLimits:
    """Bounds on the tensors of one message; without values of its own it bounds nothing.

    Attributes:
        tensor_bytes: of one tensor, as it is sent.
        string_bytes: of one element of a BYTES tensor.
        strings: elements of one BYTES tensor.
        tensors: tensors of one message.
    """

    tensor_bytes: int = sys.maxsize
    string_bytes: int = sys.maxsize
    strings: int = sys.maxsize
    tensors: int = sys.maxsize


UNLIMITED: Final = TensorLimits()
