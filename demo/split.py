"""Who shall answer: which variants take part, with what weights, written as traffic.yaml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from demo.errors import DemoError

BASELINE: Final = "baseline"
# Those that differ most from one another first; the third one is loaded while traffic runs.
_PREFERRED: Final = ("int8", "pruned-int8", "distilled", "pruned", "fp16", "int8-dynamic")


@dataclass(frozen=True, slots=True)
class Cast:
    """The variants of the experiment: the baseline, the candidates beside it, and the one that comes late."""

    candidates: tuple[str, ...]
    latecomer: str

    def opening(self) -> dict[str, float]:
        """Return the split in percent before the latecomer: half to the baseline, half to the candidates."""
        return _shares((BASELINE, *self.candidates), 50.0)

    def final(self) -> dict[str, float]:
        """Return the split in percent with the latecomer: a quarter to the baseline, the rest to others."""
        return _shares((BASELINE, *self.candidates, self.latecomer), 25.0)


def choose_cast(published: Sequence[str]) -> Cast:
    """Return two candidates and a latecomer of the published variants; one candidate when there are but two.

    Raises:
        DemoError: fewer than two variants were good enough to be published.
    """
    able = [name for name in _PREFERRED if name in published]
    able += [name for name in published if name not in (BASELINE, *_PREFERRED)]
    if len(able) < 2:
        told = ", ".join(able) or "none"
        raise DemoError(
            f"Too few variants were good enough to be served beside the baseline ({told}); see the reasons "
            "above, and try again on a less busy machine."
        )
    cast = able[:3]
    return Cast(tuple(cast[:-1]), cast[-1])


def _shares(names: Sequence[str], first: float) -> dict[str, float]:
    """Give the first its share and divide the rest evenly, to hundredths; the last takes what is left."""
    others = names[1:]
    each = round((100.0 - first) / len(others), 2)
    shares = {names[0]: first} | dict.fromkeys(others, each)
    shares[names[-1]] = round(100.0 - sum(list(shares.values())[:-1]), 2)
    return shares


def write_split(model_folder: Path, split: Mapping[str, float]) -> None:
    """Replace a model's traffic.yaml in one step: a reader sees the old one or the new one."""
    content = yaml.safe_dump({"baseline": BASELINE, "split": dict(split)}, sort_keys=False)
    hidden = model_folder / ".traffic.yaml.new"
    hidden.write_text(content, encoding="utf-8")
    hidden.replace(model_folder / "traffic.yaml")
