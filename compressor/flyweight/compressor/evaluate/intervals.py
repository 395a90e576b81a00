"""How sure a share of samples is: confidence intervals of one, and of the difference of two paired ones."""

import math
from statistics import NormalDist
from typing import Final

Interval = tuple[float, float]

CONFIDENCE: Final = 0.95


def wilson(successes: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """Return the score interval of a share (E. B. Wilson, JASA 22, 1927).

    With p = successes / n and z the normal quantile: (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 +
    z^2/n). It stays inside 0 and 1 and is sound for shares near them, where models are.

    Args:
        successes: of the samples.
        samples: at least 1.
        confidence: how often such an interval holds the true share.
    """
    z = _quantile(confidence)
    share, shrink = successes / samples, 1 + z * z / samples
    centre = share + z * z / (2 * samples)
    reach = z * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    return max(0.0, (centre - reach) / shrink), min(1.0, (centre + reach) / shrink)


def paired_difference(better: int, worse: int, samples: int, confidence: float = CONFIDENCE) -> Interval:
    """Return an interval of the change of accuracy between two models asked the same samples.

    The adjusted Wald interval of Bonett and Price (2012), which Fagerland, Lydersen and Laake (Statistics in
    Medicine 33, 2014, section 5) recommend: with p = (better + 1)/(n + 2) and q = (worse + 1)/(n + 2) it is
    p - q -+ z sqrt((p + q - (p - q)^2)/(n + 2)).

    Args:
        better: samples that only the variant answers right.
        worse: samples that only the baseline answers right.
        samples: in all, those on which they agree included; at least 1.
        confidence: how often such an interval holds the true difference.
    """
    total = samples + 2
    gained, lost = (better + 1) / total, (worse + 1) / total
    difference = gained - lost
    reach = _quantile(confidence) * math.sqrt((gained + lost - difference * difference) / total)
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def _quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)
