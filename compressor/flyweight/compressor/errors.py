"""The errors the compressor expects.

CompressorError(FlyweightError)
├── ModelError      the model cannot be read, run or changed
├── DataError       the data do not fit the model
├── RecipeError     a recipe is malformed, or its passes do not fit together
└── PassError       a pass was given what it cannot work on, or broke its own promise
    └── OutOfTimeError   the time limit came before the pass was done
"""

from flyweight.protos.errors import FlyweightError


class CompressorError(FlyweightError):
    """An expected failure of the compressor."""


class ModelError(CompressorError):
    """The model cannot be read, run or changed as asked."""


class DataError(CompressorError):
    """The data are missing, empty, or do not fit the model's inputs."""


class RecipeError(CompressorError):
    """The recipe is malformed, or one pass does not give what the next one needs."""


class PassError(CompressorError):
    """A pass cannot work on this model, or its result is not what it guarantees."""


class OutOfTimeError(PassError):
    """The time limit of the run came before the pass was done."""
