"""Coding an ONNX model into one file that the server loads as it is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from google.protobuf.message import EncodeError

from flyweight.compressor.errors import PassError
from flyweight.compressor.model import Model
from flyweight.compressor.onnx_model import load_graph
from flyweight.compressor.passes.base import Form, Pass, PassResult
from flyweight.compressor.passes.share.tidy import tidy
from flyweight.protos.coded import CodedError, decode, encode
from flyweight.protos.variant.names import CODED_SUFFIX

if TYPE_CHECKING:
    from flyweight.compressor.context import Context


@dataclass(frozen=True, slots=True)
class Encode(Pass):
    """Entropy-codes a model into one file (Han, Mao and Dally 2016, section 4; rANS in Huffman's place).

    The graph that comes out of it is the one that went in, bit for bit, so neither accuracy nor speed
    changes, and a server decodes it when it loads it. It pays where weights repeat: after sparsify and share,
    or in int8; plain fp32 weights lose about a sixth.

    Attributes:
        strip: takes descriptions, metadata and inferred shapes out of the graph before, which nobody needs
            who runs it.
    """

    name: ClassVar[str] = "encode"
    needs: ClassVar[Form] = Form.ONNX
    gives: ClassVar[Form] = Form.CODED

    strip: bool = True

    def apply(self, model: Model, context: "Context") -> PassResult:
        """Return the coded model.

        Raises:
            PassError: it is larger than protobuf allows in one file.
            ModelError: it cannot be read.
        """
        graph = load_graph(model.onnx_path())
        if self.strip:
            tidy(graph)
        try:
            content = graph.SerializeToString()
        except (EncodeError, ValueError) as error:
            raise PassError(
                "The model has 2 GiB of weights or more, which no single file holds; leave encode out."
            ) from error
        context.check_time()
        try:
            coded = encode(content)
            context.check_time()
            if decode(coded) != content:
                raise PassError("The coded file does not decode to the model; this is a bug in flyweight.")
        except CodedError as error:
            raise PassError(f"The model cannot be coded: {error}.") from error
        path = context.new_path("encode", f".onnx{CODED_SUFFIX}")
        path.write_bytes(coded)
        note = (
            f"{len(content)} bytes coded into {len(coded)}, {len(content) / len(coded):.1f} times fewer; "
            "decoded bit for bit when loaded."
        )
        return PassResult(Model(path=path), changed=True, notes=(note,))
