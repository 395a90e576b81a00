"""What a run of the demo may be told."""

from dataclasses import dataclass
from enum import Enum
from pathlib import Path


class Source(Enum):
    """The data that the demo can run on."""

    DIGITS = "digits"
    FASHION = "fashion"
    IMAGENET = "imagenet"


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """One run.

    Attributes:
        source: which data.
        data_folder: where they are, when not in the usual place.
        out: folder that receives the repository, the report and the summary.
        seed: of every random choice.
        threads: that training may use. One by default: a second halves the time of training on an idle
            machine, and multiplies it on a busy one, where the two wait for each other at every layer.
            Latency is measured, and served, with one thread per session too.
        quick: train a moment and send little traffic, to try the machinery; figures mean little then.
    """

    source: Source = Source.DIGITS
    data_folder: Path | None = None
    out: Path = Path("build/demo")
    seed: int = 0
    threads: int = 1
    quick: bool = False

    @property
    def repository(self) -> Path:
        """The model repository that is served."""
        return self.out / "repository"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.out / "report.html"

    @property
    def summary(self) -> Path:
        """The table, as JSON."""
        return self.out / "summary.json"

    @property
    def model(self) -> str:
        """The name under which the model is served."""
        return self.source.value
