"""Fewer bits: static, dynamic and mixed int8, weights alone in 8 or 4 bits, and fp16 as a storage format."""

from flyweight.compressor.passes.quantize.dynamic_int8 import DynamicInt8
from flyweight.compressor.passes.quantize.equalize import Equalize
from flyweight.compressor.passes.quantize.fp16 import Fp16Storage
from flyweight.compressor.passes.quantize.mixed_int8 import MixedInt8
from flyweight.compressor.passes.quantize.static_int8 import StaticInt8
from flyweight.compressor.passes.quantize.weight_only import WeightOnly

__all__ = ["DynamicInt8", "Equalize", "Fp16Storage", "MixedInt8", "StaticInt8", "WeightOnly"]
