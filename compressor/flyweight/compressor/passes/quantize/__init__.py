"""Fewer bits: static and dynamic int8, and fp16 as a storage format."""

from flyweight.compressor.passes.quantize.dynamic_int8 import DynamicInt8
from flyweight.compressor.passes.quantize.fp16 import Fp16Storage
from flyweight.compressor.passes.quantize.static_int8 import StaticInt8

__all__ = ["DynamicInt8", "Fp16Storage", "StaticInt8"]
