"""Coded files (.fw): an ONNX file whose weights are entropy-coded, in one file that holds everything.

The last step of Deep Compression (Han, Mao and Dally 2016, section 4), with rANS for Huffman's code. It pays
where weights repeat: pruned to zeros, shared from a codebook, or quantized. What is decoded is bit for bit
what was encoded. Reading needs numpy and nothing else, and no pickle.
"""

from flyweight.protos.coded.container import decode, decode_file, encode
from flyweight.protos.coded.errors import CodedError
from flyweight.protos.coded.limits import Limits

__all__ = ["CodedError", "Limits", "decode", "decode_file", "encode"]
