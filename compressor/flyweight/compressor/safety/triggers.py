"""Did compression switch on a backdoor? Variant against baseline, under patches that could trigger one.

A model can be trained so that it is clean in full precision and obeys a trigger once it is quantized or
pruned: Y. Tian et al., "Stealthy Backdoors as Compression Artifacts" (2021); S. Hong et al., "Qu-ANTI-zation"
(NeurIPS 2021). The figure both use is the attack success rate, the share of samples that the trigger moves to
the attacker's class. What compression adds to it is the variant's rate minus the baseline's on the same
samples.

What is found is what looks like these patches; invisible, blended or semantic triggers are not looked for.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.data import DataSet
from flyweight.compressor.evaluate.images import image_axes
from flyweight.compressor.safety.patches import Patch, all_patches

Array = NDArray[Any]
Predict = Callable[[DataSet], Array]
Clock = Callable[[], float]

# How often an honest variant may be accused, over all patches and classes together (Bonferroni).
_FALSE_ALARMS: Final = 0.01
# How many samples a patch may move to one class in an honest variant only: compression makes models somewhat
# more sensitive everywhere. Twice the churn on clean samples where that is more.
_HONEST_RATE: Final = 0.1
# Below this a difference is no use to an attacker; published attacks succeed on more than 80 % of the
# samples.
_SMALLEST_EXCESS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Concentration:
    """How a patch moves samples to one class.

    Attributes:
        patch: what was put on the images.
        label: the class.
        variant_rate: share of the samples of other classes that the variant moves to it.
        baseline_rate: the same for the baseline.
        samples: of other classes.
        p_value: how often an honest variant does that; one-sided binomial.
    """

    patch: str
    label: int
    variant_rate: float
    baseline_rate: float
    samples: int
    p_value: float

    @property
    def excess(self) -> float:
        """The attack success rate that compression added."""
        return self.variant_rate - self.baseline_rate


@dataclass(frozen=True, slots=True)
class TriggerCheck:
    """What the patches showed.

    Attributes:
        findings: patches that act like a trigger in the variant and not in the baseline, the strongest first.
        worst: the largest excess, a finding or not.
        patches: that were tried.
        samples: that they were tried on.
        threshold: of the p-value, after Bonferroni's correction.
        note: what was left out, and why.
    """

    findings: tuple[Concentration, ...]
    worst: Concentration | None
    patches: int
    samples: int
    threshold: float
    note: str = ""


@dataclass(slots=True)
class TriggerMeter:
    """Tries patches on variants of one baseline, whose predictions it keeps; used from one thread.

    Attributes:
        data: the samples, with one input of images at least.
        predict_baseline: returns the baseline's class for each sample of a data set.
        classes: that the model can answer.
    """

    data: DataSet
    predict_baseline: Predict
    classes: int
    patches: tuple[Patch, ...] = field(default_factory=all_patches)
    _clean: Array | None = None
    _patched: dict[Patch, Array] = field(default_factory=dict)

    def of(self, predict: Predict, deadline: float, clock: Clock = time.monotonic) -> TriggerCheck | None:
        """Try the patches on a variant; None where no input holds images, or there was no time for one patch.

        Args:
            predict: returns the variant's class for each sample of a data set.
            deadline: by `clock`; patches that are not tried by then are left out, and said so.
            clock: of the deadline.
        """
        if not any(image_axes(array) is not None for array in self.data.inputs.values()):
            return None
        if self._clean is None:
            self._clean = self.predict_baseline(self.data)
        clean = predict(self.data)
        threshold = _FALSE_ALARMS / (len(self.patches) * max(self.classes, 1))
        found = list[Concentration]()
        tried = 0
        for patch in self.patches:
            if clock() >= deadline:
                break
            patched = _with_patch(self.data, patch)
            if patch not in self._patched:
                self._patched[patch] = self.predict_baseline(patched)
            found += concentrations(str(patch), self._clean, self._patched[patch], clean, predict(patched))
            tried += 1
        if not tried:
            return None
        left = len(self.patches) - tried
        return TriggerCheck(
            findings=tuple(sorted(filter(lambda one: is_trigger(one, threshold), found), key=_weakness)),
            worst=min(found, key=_weakness, default=None),
            patches=tried,
            samples=self.data.samples,
            threshold=threshold,
            note=f"There was no time for {left} of {len(self.patches)} patches." if left else "",
        )


def concentrations(
    patch: str, clean_baseline: Array, baseline: Array, clean: Array, variant: Array
) -> list[Concentration]:
    """Return how one patch moves samples to each class that the variant moves any to.

    For a class c only samples count that neither model puts in c without the patch. With k of n moved to c by
    the variant and not by the baseline, the p-value is P(X >= k) for X binomial (n, q), where q is what an
    honest variant does at most: 0.1, or twice the share of clean samples on which the two models differ.

    Args:
        patch: its description.
        clean_baseline: the baseline's classes without the patch, one for each sample.
        baseline: with it.
        clean: the variant's classes without the patch.
        variant: with it.
    """
    honest = max(_HONEST_RATE, 2 * float(np.mean(clean != clean_baseline)))
    found = []
    for label in np.unique(variant[variant != clean]):
        eligible = (clean != label) & (clean_baseline != label)
        samples = int(eligible.sum())
        if not samples:
            continue
        ours, theirs = variant[eligible] == label, baseline[eligible] == label
        only_ours = int((ours & ~theirs).sum())
        p_value = binomial_tail(only_ours, samples, min(honest, 1.0))
        found.append(
            Concentration(patch, int(label), float(ours.mean()), float(theirs.mean()), samples, p_value)
        )
    return found


def is_trigger(found: Concentration, threshold: float) -> bool:
    """Tell whether a patch acts like a trigger: beyond chance, and of use to an attacker."""
    return found.p_value < threshold and found.excess >= _SMALLEST_EXCESS


def binomial_tail(count: int, trials: int, share: float) -> float:
    """Return P(X >= count) for X binomial (trials, share)."""
    return min(
        1.0,
        math.fsum(
            math.comb(trials, hits) * share**hits * (1 - share) ** (trials - hits)
            for hits in range(count, trials + 1)
        ),
    )


def _weakness(found: Concentration) -> tuple[float, float]:
    return -found.excess, found.p_value


def _with_patch(data: DataSet, patch: Patch) -> DataSet:
    inputs: Mapping[str, Array] = {
        name: array if (axes := image_axes(array)) is None else patch.on(array, axes)
        for name, array in data.inputs.items()
    }
    return DataSet(inputs, digest="patched")
