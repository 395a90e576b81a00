"""What passes may use beside the model: data, a folder to write in, progress, randomness, patience."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from flyweight.compressor.errors import OutOfTimeError

if TYPE_CHECKING:
    from flyweight.compressor.data import DataSet


class Progress(Protocol):
    """Someone who is told how far a long step has come."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Say that `done` of `total` steps of `what` are finished."""


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of a pass.

    Attributes:
        workspace: a folder of the running recipe; a pass asks `new_path` for a file of its own in it.
        calibration: unlabelled or labelled samples that passes may learn ranges from.
        training: samples to train on, or None when the user gave none; training passes then distil from the
            original on `calibration`.
        baseline: the original as a torch module, for passes that learn from it: the user's own, or the one
            imported from the ONNX file. None where no recipe needs one.
        progress: told of everything that takes longer than a moment.
        seed: of every random choice, so that a recipe gives the same variant twice.
        threads: that training and measuring may use.
        deadline: by `time.monotonic()`, when the user's time is up; infinite without a limit.
    """

    workspace: Path
    calibration: "DataSet"
    training: "DataSet | None" = None
    baseline: object | None = None
    progress: Progress = silent
    seed: int = 0
    threads: int = 1
    deadline: float = math.inf
    counter: Callable[[], int] = field(default_factory=lambda: iter(range(10**9)).__next__)

    def new_path(self, stem: str, suffix: str = ".onnx") -> Path:
        """Return a path in a fresh folder of the workspace; nobody else was given it."""
        folder = self.workspace / f"{self.counter():03d}-{stem}"
        folder.mkdir(parents=True)
        return folder / f"model{suffix}"

    def remaining_seconds(self) -> float:
        """Return how much of the user's time is left; infinite without a limit."""
        return self.deadline - time.monotonic()

    def within(self, share: float) -> "Context":
        """Return the context with a deadline after a share of the time that is left."""
        if math.isinf(self.deadline):
            return self
        return replace(self, deadline=self.deadline - (1 - share) * max(self.remaining_seconds(), 0.0))

    def check_time(self) -> None:
        """Be called between the steps of whatever takes longer than a second.

        Raises:
            OutOfTimeError: the user's time is up.
        """
        if self.remaining_seconds() <= 0:
            raise OutOfTimeError("The time limit came before this was done; give more with --time-limit.")
