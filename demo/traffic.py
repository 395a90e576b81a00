"""Live traffic: callers in threads, each sending its next request when it has its answer, and all counted."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from flyweight.client import ClientError, Prediction
from flyweight.compressor.data import DataSet


@dataclass(frozen=True, slots=True)
class Answer:
    """One request that was sent, whatever became of it.

    Attributes:
        sent_at: seconds since the traffic began.
        seconds: that the caller waited.
        variant: that answered; empty when the request failed.
        role: of that variant in the split.
        correct: whether the answer was the sample's label.
        failure: the client's sentence when it failed, else empty.
    """

    sent_at: float
    seconds: float
    variant: str = ""
    role: str = ""
    correct: bool = False
    failure: str = ""


Ask = Callable[[int], tuple[Prediction, bool]]
"""Send one sample, by its index, and tell what was answered and whether it is right. Raises ClientError."""


@dataclass
class Traffic:
    """Running callers and what they saw; the callers' threads belong to `flowing`."""

    started: float = field(default_factory=time.monotonic)
    answers: list[Answer] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)

    def now(self) -> float:
        """Return the seconds since the traffic began."""
        return time.monotonic() - self.started

    def count(self) -> int:
        """Return how many requests have ended so far."""
        return len(self.answers)

    def call(self, ask: Ask, order: Sequence[int]) -> None:
        """Send one sample after the other, round and round, until it is enough."""
        place = 0
        while not self.enough.is_set():
            # Appending to a list is atomic, so callers share one without a lock.
            self.answers.append(self._one(ask, int(order[place % len(order)])))
            place += 1

    def _one(self, ask: Ask, index: int) -> Answer:
        sent_at = self.now()
        try:
            prediction, correct = ask(index)
        except ClientError as error:
            return Answer(sent_at, self.now() - sent_at, failure=str(error))
        return Answer(sent_at, self.now() - sent_at, prediction.variant, prediction.role, correct)


@contextmanager
def flowing(asks: Sequence[Ask], samples: int, seed: int) -> Iterator[Traffic]:
    """Keep one caller per element of `asks` busy until the block ends; all of them have ended then.

    Args:
        asks: how each caller sends a sample.
        samples: how many samples there are; each caller goes through them in an order of its own.
        seed: of those orders.
    """
    traffic = Traffic()
    orders = [
        np.random.default_rng([seed, caller]).permutation(samples).tolist() for caller in range(len(asks))
    ]
    threads = [
        # Daemons: a caller that hangs must not keep a failed demo alive; each call has a deadline anyway.
        threading.Thread(target=traffic.call, args=(ask, order), name=f"caller-{number}", daemon=True)
        for number, (ask, order) in enumerate(zip(asks, orders, strict=True))
    ]
    for thread in threads:
        thread.start()
    try:
        yield traffic
    finally:
        traffic.enough.set()
        for thread in threads:
            thread.join()


def is_right(prediction: Prediction, data: DataSet, index: int) -> bool:
    """Tell whether the class with the largest score is the sample's label."""
    assert data.labels is not None, "the demo's data are labelled"
    return int(prediction.output[0].argmax()) == int(data.labels[index])
