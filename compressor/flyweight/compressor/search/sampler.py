"""Samplers whose next proposal is a function of the seed and of what the study holds, and of nothing else.

Optuna's samplers draw from a generator that lives as long as the process, so a search that is killed and
resumed would go on otherwise than one that was not. Here every trial gets a sampler of its own, seeded by
(seed, how many trials came before it that were not lost).
"""

import hashlib
from collections.abc import Sequence
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import BaseSampler, NSGAIISampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from flyweight.compressor.search.sampler_settings import SamplerSettings
from flyweight.compressor.search.space import Genes, Parameter


class _OrderedNSGAII(NSGAIISampler):
    """Parents in the order of their numbers: once selected they come from the storage in that order.

    The trial that selects them would otherwise see them by rank, and be another one when it is repeated.
    """

    def select_parent(self, study: Study, generation: int) -> list[FrozenTrial]:
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


class RepeatableSampler(BaseSampler):
    """Hands every trial to a fresh sampler of its own seed; the first ones are given."""

    def __init__(
        self, parameters: Sequence[Parameter], settings: SamplerSettings, starters: Sequence[Genes] = ()
    ) -> None:
        self._space = {parameter.name: distribution_of(parameter) for parameter in parameters}
        self._settings = settings
        self._starters = starters
        self._place = 0
        self._inner: BaseSampler = NSGAIISampler(seed=0)

    def reseed_rng(self) -> None:
        """Do nothing: several workers differ by the numbers of their trials."""

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Make the sampler of this trial."""
        # A trial that was lost is repeated under a later number, and must be proposed as it was.
        earlier = [
            other
            for other in study.get_trials(deepcopy=False)
            if other.number < trial.number and other.state is not TrialState.FAIL
        ]
        self._place = len(earlier)
        self._inner = _sampler(self._settings, _seed(self._settings.seed, self._place))
        self._inner.before_trial(study, trial)

    def infer_relative_search_space(
        self,
        study: Study,  # noqa: ARG002 - the interface is Optuna's
        trial: FrozenTrial,  # noqa: ARG002 - as above
    ) -> dict[str, BaseDistribution]:
        """Return the whole space, which is known from the start."""
        return {name: kind for name, kind in self._space.items() if not kind.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose from what the study holds."""
        proposed = self._inner.sample_relative(study, trial, search_space)
        if self._place < len(self._starters):
            starter = self._starters[self._place]
            return {name: starter.get(name, 0) for name in search_space}
        return proposed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a gene at random: in the first generation, and where one mutates."""
        return self._inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Pass it on."""
        self._inner.after_trial(study, trial, state, values)


def distribution_of(parameter: Parameter) -> BaseDistribution:
    """Return what Optuna calls the values of a gene."""
    if parameter.ordered:
        return IntDistribution(0, parameter.count - 1)
    return CategoricalDistribution(tuple(range(parameter.count)))


def _sampler(settings: SamplerSettings, seed: int) -> BaseSampler:
    if settings.algorithm == "tpe":
        return TPESampler(seed=seed, multivariate=True, n_startup_trials=settings.population)
    return _OrderedNSGAII(seed=seed, population_size=settings.population)


def _seed(seed: int, place: int) -> int:
    """Return 32 bits that two trials do not share but by chance."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{place}".encode()).digest()[:4], "big")
