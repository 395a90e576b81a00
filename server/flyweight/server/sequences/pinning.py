"""Which variant goes on with a sequence: the one that began it, whatever the traffic plan says now. Pure."""

from collections.abc import Mapping
from typing import Protocol

from flyweight.server.sequences.controls import SequenceId
from flyweight.server.sequences.store import Sequences


class Stateful(Protocol):
    """A variant that may keep sequences."""

    @property
    def sequences(self) -> Sequences | None:
        """Return what it keeps; None for a model without state."""
        ...


def holder_of(variants: Mapping[str, Stateful], sequence_id: SequenceId) -> str | None:
    """Return the name of the variant that a sequence is under way on; None when there is none."""
    for name, variant in variants.items():
        if variant.sequences is not None and variant.sequences.knows(sequence_id):
            return name
    return None
