"""How a search proposes recipes; apart from the samplers, which need Optuna to be installed."""

from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["nsga2", "tpe"]


@dataclass(frozen=True, slots=True)
class SamplerSettings:
    """How proposals are made.

    Attributes:
        algorithm: nsga2, the genetic algorithm of K. Deb et al., "A Fast and Elitist Multiobjective Genetic
            Algorithm: NSGA-II", IEEE TEC 2002; or tpe, the multi-objective tree-structured Parzen estimator
            of Y. Ozaki et al., GECCO 2020.
        seed: of every draw.
        population: trials of a generation. Searches here have tens of trials, not thousands: with Optuna's
            default of 50 most would end within the first generation, which is drawn at random.
    """

    algorithm: Algorithm = "nsga2"
    seed: int = 0
    population: int = 12
