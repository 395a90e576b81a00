"""Which tensors share a codebook, and how many entries it has."""

from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

from flyweight.compressor.errors import RecipeError

# 2**8 entries are what a coded file's codebooks hold at most.
MOST_BITS: Final = 8
# A shorter tensor and its codebook take as much room as the tensor alone.
SMALLEST_TENSOR: Final = 64


class Scope(Enum):
    """How far a codebook reaches."""

    LAYER = "layer"
    KIND = "kind"
    MODEL = "model"


class Kind(Enum):
    """What a tensor is for."""

    CONVOLUTION = "convolutions"
    PRODUCT = "products"
    VECTOR = "biases"


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who shares a codebook with whom.

    Attributes:
        bits: of an index into the codebook of matrices: 2**bits entries. 5 is what Han et al. 2016 give fully
            connected layers (section 4).
        conv_bits: the same for filters of convolutions, which bear less: 8 in the same place.
        bias_bits: the same for biases; 0 leaves them as they are. All biases share one codebook, for each
            alone is too short to have one.
        scope: layer: each tensor has its own codebook. kind: all convolutions share one and all products
            another. model: all weights share one, of `bits`.
        groups: patterns of tensor names, such as "encoder.*"; the tensors that match the same one share a
            codebook, whatever `scope` says of the others. Of several that match, the first counts.
    """

    bits: int = 5
    conv_bits: int = 8
    bias_bits: int = 0
    scope: Scope = Scope.LAYER
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            RecipeError: a number of bits is out of its range.
        """
        for name, bits, lowest in (
            ("bits", self.bits, 1),
            ("conv_bits", self.conv_bits, 1),
            ("bias_bits", self.bias_bits, 0),
        ):
            if not lowest <= bits <= MOST_BITS:
                raise RecipeError(f"For sharing, {name} is from {lowest} to {MOST_BITS}, not {bits}.")

    def group_of(self, name: str, kind: Kind) -> tuple[str, int]:
        """Return the codebook that a tensor belongs to, by a name for it, and its bits; 0 bits for none."""
        own = {Kind.CONVOLUTION: self.conv_bits, Kind.PRODUCT: self.bits, Kind.VECTOR: self.bias_bits}[kind]
        for pattern in self.groups:
            if fnmatchcase(name, pattern):
                return f"group {pattern}", own if kind is Kind.VECTOR and not own else self.bits
        if kind is Kind.VECTOR:
            return kind.value, own
        if self.scope is Scope.MODEL:
            return "model", self.bits
        return (name, own) if self.scope is Scope.LAYER else (kind.value, own)
