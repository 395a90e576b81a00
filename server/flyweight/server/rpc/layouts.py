"""Requests that differ from one before in their tensors' bytes alone, and in their id.

A client sends the same names, datatypes, shapes and parameters again and again. Reading and checking them
takes longer than a small model, so what was understood of a request is kept, and a request whose other bytes
are the same is understood already.
"""

from collections.abc import Hashable, Iterator
from typing import Final, NamedTuple

import numpy as np

from flyweight.protos.inference.grpc_service_pb2 import ModelInferRequest
from flyweight.protos.tensors import Array
from flyweight.server.rpc.call import Body
from flyweight.server.rpc.fields import BYTES, Field, fields_of
from flyweight.server.rpc.large import LARGE_BYTES, RAW, address_of, part_of
from flyweight.server.rpc.parameters import InferOptions

_ID: Final = ModelInferRequest.ID_FIELD_NUMBER
# Layouts of one length, and lengths: the models that one server has, asked by a few kinds of clients each.
_MOST_ALIKE: Final = 4
_MOST_LENGTHS: Final = 256
# What is compared and kept of a request besides its tensors.
_MOST_BYTES: Final = 4096
# A client with something of its own in every request, as a user's name, is never met again: for every layout
# that is kept so many requests must have been known.
_WORTH: Final = 4
_FIRST_CREDIT: Final = 1024


# Variants that one layout was checked against: those of a model, and a few generations of them.
_MOST_CHECKED: Final = 64
# Their bytes are looked at one by one (`flyweight.protos.tensors`), so there is nothing to be gained.
_LOOKED_AT: Final = frozenset({"BYTES", "BOOL"})


class Checked(NamedTuple):
    """What a request is to one variant: how many rows, which outputs, and whom it may share a run with."""

    rows: int
    wanted: tuple[str, ...]
    kind: Hashable


class Layout:
    """What was understood of a request, but for its tensors' bytes and its id.

    Attributes:
        message: the request without its raw contents.
        options: what its parameters ask for.
    """

    __slots__ = ("_checked", "_id", "_pieces", "_tensors", "message", "options")

    def __init__(
        self,
        body: Body,
        fields: list[Field],
        message: ModelInferRequest,
        options: InferOptions,
        inputs: dict[str, Array],
    ) -> None:
        self.message = ModelInferRequest()
        self.message.CopyFrom(message)
        self.message.ClearField("raw_input_contents")
        self.options = options
        self._checked: dict[int, Checked] = {}
        raw = [field for field in fields if field.number == RAW]
        self._id = next(((field.start, field.end) for field in fields if field.number == _ID), (0, 0))
        self._pieces = tuple(_pieces(body, fields))
        self._tensors = tuple(
            (name, array.shape, array.dtype, field.start, field.end)
            for (name, array), field in zip(inputs.items(), raw, strict=True)
        )

    def fits(self, body: Body) -> bool:
        """Tell whether a request of the same length has this layout."""
        for start, end, piece in self._pieces:  # noqa: SIM110 - a generator would take as long as all of it
            if body[start:end] != piece:
                return False
        return True

    def id_of(self, body: Body) -> str | None:
        """Return a request's id; None if it is no text, which the protobuf library has the words for."""
        start, end = self._id
        if not end:
            return ""
        try:
            return str(body[start:end], "utf-8")
        except UnicodeDecodeError:
            return None

    def checked_by(self, instance: int) -> Checked | None:
        """Return what a request is to a variant (`LoadedVariant.instance`); None if that is not known yet."""
        return self._checked.get(instance)

    def note(self, instance: int, checked: Checked) -> None:
        """Keep what a request is to a variant."""
        if len(self._checked) >= _MOST_CHECKED:
            self._checked.clear()
        self._checked[instance] = checked

    def inputs_of(self, body: Body) -> dict[str, Array]:
        """Return a request's tensors."""
        address = address_of(body) if len(body) >= LARGE_BYTES else None
        inputs: dict[str, Array] = {}
        for name, shape, dtype, start, end in self._tensors:
            data = body[start:end] if address is None else part_of(body, address, start, end)
            inputs[name] = np.ndarray(shape, dtype, data)
        return inputs


def _pieces(body: Body, fields: list[Field]) -> Iterator[tuple[int, int, bytes]]:
    """Go through what two requests of a layout have in common: start, end, and the bytes between."""
    began = 0
    for field in fields:
        if field.number in {RAW, _ID}:
            yield began, field.start, bytes(body[began : field.start])
            began = field.end
    if began < len(body):
        yield began, len(body), bytes(body[began:])


class Layouts:
    """The layouts that were met. For any thread: those who meet here may miss something, and no more."""

    def __init__(self) -> None:
        self._by_length: dict[int, list[Layout]] = {}
        self._credit = _FIRST_CREDIT

    def find(self, body: Body) -> tuple[Layout, str] | None:
        """Return the layout of a request, and its id; None if none is known."""
        for layout in self._by_length.get(len(body), ()):
            if not layout.fits(body):
                continue
            request_id = layout.id_of(body)
            if request_id is None:
                return None
            if self._credit < _FIRST_CREDIT:
                self._credit += 1
            return layout, request_id
        return None

    def learn(
        self,
        body: Body,
        message: ModelInferRequest,
        options: InferOptions,
        inputs: dict[str, Array],
    ) -> None:
        """Keep what was understood of a request, if another may be like it."""
        if self._credit < _WORTH or any(output.parameters for output in message.outputs):
            return
        if any(spec.parameters or spec.datatype in _LOOKED_AT for spec in message.inputs):
            return
        fields = fields_of(body)
        if fields is None or any(each.number in {RAW, _ID} and each.wire_type != BYTES for each in fields):
            return
        numbers = [field.number for field in fields]
        own_bytes = sum(field.end - field.start for field in fields if field.number != RAW)
        if numbers.count(RAW) != len(inputs) or numbers.count(_ID) > 1 or own_bytes > _MOST_BYTES:
            return
        self._credit -= _WORTH
        alike = self._by_length.get(len(body))
        if alike is None:
            if len(self._by_length) >= _MOST_LENGTHS:
                self._by_length.clear()
            alike = self._by_length[len(body)] = []
        alike.insert(0, Layout(body, fields, message, options, inputs))
        del alike[_MOST_ALIKE:]
