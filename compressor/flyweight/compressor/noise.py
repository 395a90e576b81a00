"""How much of a signal is left after it was changed."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

# Silence has a logarithm too.
_SMALLEST: Final = 1e-300


def signal_to_noise(signal: Array, changed: Array) -> float:
    """Return 10 log10(sum x**2 / sum (x - y)**2) in dB; infinite where nothing changed.

    Args:
        signal: of any shape.
        changed: of the same shape.
    """
    truth = signal.astype(np.float64)
    return decibels(float(np.square(truth).sum()), float(np.square(truth - changed).sum()))


def decibels(power: float, noise: float) -> float:
    """Return 10 log10(power / noise); infinite without noise."""
    return float("inf") if noise == 0 else 10 * float(np.log10(max(power, _SMALLEST) / noise))
