"""What a user may choose about a compression, beside the model, the data and the recipes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from flyweight.compressor.context import Progress, silent
from flyweight.compressor.data import DataSet
from flyweight.compressor.errors import RecipeError
from flyweight.compressor.evaluate.agreement import Kind
from flyweight.compressor.evaluate.settings import EvaluationSettings
from flyweight.compressor.gate import Limits

# Ranges of activations hardly change beyond a few hundred samples.
CALIBRATION_SAMPLES: Final = 512
# No processor has more cores for one operator; a thousand times as many threads stop the machine.
MOST_THREADS: Final = 256
# What every source of random numbers that we use takes.
LARGEST_SEED: Final = 2**63 - 1
LONGEST_SECONDS: Final = 3600.0
# Three generations of the genetic algorithm, which small networks finish in ten minutes.
TRIALS: Final = 48
# A study looks through all of its trials before each new one.
MOST_TRIALS: Final = 100_000
# What people wait for at their desk; enough for every quick technique and some training on two cores.
TIME_LIMIT_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Options:
    """Choices, all with defaults.

    Attributes:
        training: samples to train on; None takes half of the data where a recipe trains.
        limits: what a variant may cost to be published.
        variant_limits: other limits for single variants, by name.
        threads: inside an operator, for measuring and, by the manifest, for serving.
        seed: of every random choice.
        calibration_samples: at most so many samples are used to learn ranges from.
        seconds_per_point: of timing for each batch size of each variant.
        output: the output that labels are compared with; None takes the first that fits.
        agreement: what the same answer means: auto, top1 or values.
        progress: told of everything that takes longer than a moment.
        evaluation: how thoroughly variants are measured.
        explain: whether published variants are explained, layer by layer; a few seconds for each.
        transfer: whether the model gets a new head for the classes of the labels first, and learns them; what
            comes of that is the baseline.
        trials: that a search makes at most.
        workers: processes that search on this machine.
        study: where a search that several machines share keeps its trials: `postgresql://...`; None takes a
            file in the work folder.
        work_folder: for what is kept between runs: results of recipes, studies; None takes the user's cache
            folder.
        time_limit_seconds: after which no other variant is begun, and training ends with what it has.
    """

    training: DataSet | None = None
    limits: Limits = field(default_factory=Limits)
    variant_limits: Mapping[str, Limits] = field(default_factory=dict)
    threads: int = 1
    seed: int = 0
    calibration_samples: int = CALIBRATION_SAMPLES
    seconds_per_point: float = 1.0
    output: str | None = None
    agreement: Kind = "auto"
    progress: Progress = silent
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    explain: bool = True
    transfer: bool = False
    trials: int = TRIALS
    workers: int = 1
    study: str | None = None
    work_folder: Path | None = None
    time_limit_seconds: float = TIME_LIMIT_SECONDS

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            RecipeError: one has no meaning.
        """
        for name, value, low, high in (
            ("number of threads", self.threads, 1, MOST_THREADS),
            ("seed", self.seed, 0, LARGEST_SEED),
            ("number of calibration samples", self.calibration_samples, 1, float("inf")),
            ("time for each point in seconds", self.seconds_per_point, 0, LONGEST_SECONDS),
            ("number of trials", self.trials, 1, MOST_TRIALS),
            ("number of workers", self.workers, 1, MOST_THREADS),
            ("time limit in seconds", self.time_limit_seconds, 1, float("inf")),
        ):
            if not low <= value <= high:
                raise RecipeError(f"The {name} is from {low} to {high:g}, not {value}.")
