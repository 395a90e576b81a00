"""The slow model, and how many rounds of it take how long here."""

import time
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from oip.requests import add_raw, request
from oip.target import Target

# Long beside a call's own cost, short beside a person's patience.
_LONG_SECONDS: Final = 0.3


@dataclass(frozen=True, slots=True)
class Pace:
    """So many rounds of the slow model took so many seconds when nobody else asked."""

    rounds: int
    seconds: float

    def lasting(self, seconds: float) -> Any:
        """Return a request that takes about so long."""
        return slow_request(max(1, int(self.rounds * seconds / self.seconds)))


def slow_request(rounds: int) -> Any:
    """Return a request for so many rounds."""
    made = request("slow")
    add_raw(made, "ROUNDS", "INT64", np.array([rounds], "<i8"))
    return made


def find_pace(target: Target) -> Pace:
    """Double the rounds until they take long enough to be told from noise."""
    rounds = 64
    while True:
        before = time.monotonic()
        target.infer(slow_request(rounds)).must_be_ok()
        seconds = time.monotonic() - before
        if seconds >= _LONG_SECONDS:
            return Pace(rounds, seconds)
        rounds *= 2
