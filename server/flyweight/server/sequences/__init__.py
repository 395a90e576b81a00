"""Sequences of requests to models with state: what is kept between two of them, and whose turn it is.

A client names a sequence by an id and flags its first and its last request (Triton's sequence extension). The
model takes control inputs, which say so, and state inputs, which its own state outputs of the last request
become; neither is part of the signature that clients see.
"""

from flyweight.server.sequences.hiding import hide
from flyweight.server.sequences.pinning import holder_of
from flyweight.server.sequences.spec import SequenceSpec, sequences_of
from flyweight.server.sequences.store import Sequences, SequenceStep, Ticket

__all__ = ["SequenceSpec", "SequenceStep", "Sequences", "Ticket", "hide", "holder_of", "sequences_of"]
