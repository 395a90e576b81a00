"""What is measured beyond the first look, and how long it may take."""

from dataclasses import dataclass
from typing import Final

from flyweight.compressor.errors import RecipeError

# Of an examination: patches are many, corruptions fewer, and a long run shows leaks after seconds already.
ROBUSTNESS_SHARE: Final = 0.35
TRIGGER_SHARE: Final = 0.45
STABILITY_SHARE: Final = 0.2

# One caller, and a server's batch.
BATCHES: Final = (1, 8)


@dataclass(frozen=True, slots=True)
class EvaluationSettings:
    """How thoroughly variants are measured.

    Robustness, triggers and stability are examined only in variants that would be published.

    Attributes:
        batches: rows in a run, timed for every variant; the gate judges these.
        grid_batches: further batch sizes for the table of latencies; none by default.
        grid_threads: numbers of threads for that table; none takes the session's alone.
        robustness: whether inputs are disturbed.
        triggers: whether patches are tried.
        stability: whether it runs for long.
        examination_seconds: that these three may take for one variant, together.
    """

    batches: tuple[int, ...] = BATCHES
    grid_batches: tuple[int, ...] = ()
    grid_threads: tuple[int, ...] = ()
    robustness: bool = True
    triggers: bool = True
    stability: bool = True
    examination_seconds: float = 20.0

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RecipeError: one has no meaning.
        """
        counts = (*self.batches, *self.grid_batches, *self.grid_threads)
        if not self.batches or min(counts) < 1:
            raise RecipeError(
                "Batch sizes and numbers of threads are at least 1, and one batch size is needed."
            )
        if not self.examination_seconds >= 0:
            raise RecipeError(
                f"The time of an examination is at least 0 seconds, not {self.examination_seconds}."
            )

    @classmethod
    def quick(cls) -> "EvaluationSettings":
        """Return settings that leave out everything a search for variants does not need."""
        return cls(robustness=False, triggers=False, stability=False, examination_seconds=0.0)

    @classmethod
    def thorough(cls) -> "EvaluationSettings":
        """Return settings for a model that will be relied on: minutes for each published variant."""
        return cls(grid_batches=(1, 8, 32), grid_threads=(1, 2), examination_seconds=300.0)

    @property
    def examines(self) -> bool:
        """Whether anything is examined at all."""
        return self.examination_seconds > 0 and (self.robustness or self.triggers or self.stability)
