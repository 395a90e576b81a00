"""Enumerations in a message whose numbers mean something.

Those of proto3 are open (protobuf.dev, "Language Guide (proto 3)", "Enumerations"): the text and the JSON
form take any number for a value, and whoever asks for its name later gets an error.
"""

from collections.abc import Iterable, Iterator, Mapping

from google.protobuf.message import Message


def first_unknown_value(message: Message) -> str:
    """Return the first enumeration whose number has no name, as "field: number"; empty when there is none."""
    return next(_unknown_values(message), "")


def _unknown_values(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.enum_type is not None:
            for number in _each(value):
                if number not in field.enum_type.values_by_number:
                    yield f"{field.name}: {number}"
        elif field.message_type is not None:
            for inner in _each(value):
                # A map's values may be plain.
                if isinstance(inner, Message):
                    yield from _unknown_values(inner)


def _each(value: object) -> Iterable[object]:
    """Return the values of a field: one, those of a list, or those of a map."""
    if isinstance(value, Mapping):
        return value.values()
    return value if isinstance(value, Iterable) and not isinstance(value, Message) else (value,)
