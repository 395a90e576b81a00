"""How much of a signal is left after it was changed."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def signal_to_noise(signal: Array, changed: Array) -> float:
    """Return 10 log10(sum x**2 / sum (x - y)**2) in dB; infinite where nothing changed.

    Args:
        signal: of any shape.
        changed: of the same shape.
    """
    noise = float(np.square(signal.astype(np.float64) - changed).sum())
    power = float(np.square(signal.astype(np.float64)).sum())
    return float("inf") if noise == 0 else 10 * float(np.log10(max(power, 1e-300) / noise))
