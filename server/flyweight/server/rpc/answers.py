"""The bytes of a ModelInferResponse: what every answer of a variant has in common is written once."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from flyweight.protos.inference.grpc_service_pb2 import ModelInferResponse
from flyweight.protos.tensors import Array, encode_tensor
from flyweight.server.lifecycle.table import LoadedVariant
from flyweight.server.rpc.fields import tag_of, varint
from flyweight.server.traffic import Choice

_ID_TAG: Final = tag_of(ModelInferResponse.ID_FIELD_NUMBER)
_RAW_TAG: Final = tag_of(ModelInferResponse.RAW_OUTPUT_CONTENTS_FIELD_NUMBER)
# Variants with the shapes of their answers, of which a batch may have as many as rows.
_MOST_HEADS: Final = 1024

_Key: TypeAlias = tuple[object, ...]


def head_of_answer(variant: LoadedVariant, choice: Choice, *, is_final: bool) -> ModelInferResponse:
    """Return a response that says who answers, and why.

    Args:
        variant: who answers.
        choice: why.
        is_final: whether to say that no more responses to the request follow.
    """
    response = ModelInferResponse(model_name=variant.model, model_version=variant.name)
    parameters = response.parameters
    # What a caller needs to compare variants by itself; the names are part of the wire contract.
    parameters["flyweight_variant"].string_param = variant.name
    parameters["flyweight_role"].string_param = choice.role.value
    parameters["flyweight_reason"].string_param = choice.reason.value
    if is_final:
        parameters["triton_final_response"].bool_param = True
    return response


class Answers:
    """Writes answers whose tensors are sent as they are. Thread-safe."""

    def __init__(self) -> None:
        self._heads: dict[_Key, bytes] = {}

    def write(
        self, variant: LoadedVariant, choice: Choice, outputs: Mapping[str, Array], *, is_final: bool
    ) -> list[bytes]:
        """Return the parts of a response's bytes, all but the id (`id_field`).

        Raises:
            TensorError: an array cannot be sent.
        """
        key: list[object] = [variant.instance, choice.role, choice.reason, is_final]
        parts = [b""]
        for name, array in outputs.items():
            datatype, data = encode_tensor(name, array)
            key += (name, datatype, array.shape)
            parts += (_RAW_TAG, varint(len(data)), data)
        whole = tuple(key)
        head = self._heads.get(whole)
        if head is None:
            head = self._write_head(variant, choice, outputs, is_final=is_final)
            if len(self._heads) >= _MOST_HEADS:
                self._heads.clear()
            self._heads[whole] = head
        parts[0] = head
        return parts

    def _write_head(
        self, variant: LoadedVariant, choice: Choice, outputs: Mapping[str, Array], *, is_final: bool
    ) -> bytes:
        response = head_of_answer(variant, choice, is_final=is_final)
        for name, array in outputs.items():
            datatype, _ = encode_tensor(name, array)
            response.outputs.add(name=name, datatype=datatype, shape=array.shape)
        octets: bytes = response.SerializeToString()
        return octets


def id_field(request_id: str) -> bytes:
    """Return the bytes of a response's id; an empty one is not sent."""
    text = request_id.encode()
    return _ID_TAG + varint(len(text)) + text if text else b""
