"""McNemar's test: is one of two models, asked the same samples, right more often than chance explains?

Only samples tell on which exactly one of the two is right. If neither model is better, each of them is as
likely to be won as lost: their number is binomial (n, 1/2) (Q. McNemar, Psychometrika 12, 1947).
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class McNemar:
    """What the test says.

    Attributes:
        better: samples that only the variant answers right.
        worse: samples that only the baseline answers right.
        p_value: how often two equally good models differ as much or more, in either direction; mid-p.
        exact_p_value: the same by the exact conditional test, which is never too small and often too large.
    """

    better: int
    worse: int
    p_value: float
    exact_p_value: float


def mcnemar(better: int, worse: int) -> McNemar:
    """Test the two counts of samples on which exactly one model is right.

    Exact: p = 2 sum_{k <= m} C(n, k) / 2^n, at most 1, with n = better + worse and m the smaller count. Mid-p
    counts half of the probability of what was observed, 2 sum_{k <= m} C(n, k) / 2^n - C(n, m) / 2^n: it
    keeps the promised error rate in practice and sees more (M. W. Fagerland, S. Lydersen and P. Laake, BMC
    Medical Research Methodology 13:91, 2013, which recommends it).
    """
    trials, fewer = better + worse, min(better, worse)
    at_most = sum(_binomial(trials, count) for count in range(fewer + 1))
    return McNemar(better, worse, min(1.0, 2 * at_most - _binomial(trials, fewer)), min(1.0, 2 * at_most))


def _binomial(trials: int, count: int) -> float:
    """Return C(trials, count) / 2^trials, by logarithms where the numbers would not fit a float."""
    if trials <= 1000:
        return float(math.comb(trials, count) / 2**trials)
    logarithm = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(logarithm - trials * math.log(2))
