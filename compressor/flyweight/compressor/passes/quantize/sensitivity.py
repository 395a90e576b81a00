"""How much each layer's quantization hurts, and which to leave in floating point for a given quality."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from flyweight.compressor.noise import decibels
from flyweight.compressor.passes.quantize.switchboard import Switchboard

if TYPE_CHECKING:
    from flyweight.compressor.context import Context

Array = NDArray[Any]

# No error at all, in decibels: more than fp32 can tell.
SILENT_DB: Final = 150.0


@dataclass(slots=True)
class Damage:
    """A running comparison of answers: the signal to quantization noise of the worst output.

    SQNR = 10 log10(sum y^2 / sum (y~ - y)^2) decibels; 20 dB is an error of a tenth.
    """

    signal: dict[str, float] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)

    def add(self, expected: Mapping[str, Array], actual: Mapping[str, Array]) -> None:
        """Take in both answers to the same samples; what is not finite in the expected ones is left out."""
        for name, values in expected.items():
            finite = np.isfinite(values)
            reference = values[finite].astype(np.float64)
            error = actual[name][finite].astype(np.float64) - reference
            self.signal[name] = self.signal.get(name, 0.0) + float(np.square(reference).sum())
            self.noise[name] = self.noise.get(name, 0.0) + float(np.square(np.nan_to_num(error)).sum())

    @property
    def sqnr_db(self) -> float:
        """The worst output's signal to noise so far, in decibels."""
        return min((sqnr_db(self.signal[name], self.noise[name]) for name in self.signal), default=SILENT_DB)


def sqnr_db(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise), at most `SILENT_DB`."""
    return min(decibels(signal, noise), SILENT_DB)


def measure_sqnr(
    board: Switchboard, expected: Sequence[Mapping[str, Array]], quantized: Sequence[str]
) -> float:
    """Return the signal to noise of the answers when the named layers are quantized, in decibels."""
    damage = Damage()
    for reference, answers in zip(expected, board.answers(quantized), strict=True):
        damage.add(reference, answers)
    return damage.sqnr_db


def measure_sensitivity(
    board: Switchboard, expected: Sequence[Mapping[str, Array]], context: "Context"
) -> dict[str, float]:
    """Return the signal to noise when one layer alone is quantized, for each layer by name, in decibels.

    Raises:
        OutOfTimeError: the user's time was up.
    """
    found = {}
    for done, name in enumerate(board.layers):
        context.check_time()
        context.progress("measuring sensitivity", done, len(board.layers))
        found[name] = measure_sqnr(board, expected, [name])
    context.progress("measuring sensitivity", len(board.layers), len(board.layers))
    return found


def order_to_spare(
    sensitivity: Mapping[str, float], cost: Mapping[str, float], neighbours: Mapping[str, Sequence[str]]
) -> list[str]:
    """Return the layers in the order in which to give them up to floating point.

    First comes what removes most noise for what it costs: noise_i = 10^(-SQNR_i / 10), cost_i what the layer
    takes longer in floating point, conversions at its borders included. Beside a layer that is in floating
    point already, half of the conversions fall away.

    Args:
        sensitivity: SQNR of each layer quantized alone, in decibels.
        cost: above 0, in any unit.
        neighbours: the layers that a layer exchanges activations with directly.
    """
    left, order = dict(sensitivity), list[str]()
    while left:
        spared = set(order)

        def worth(name: str, spared: set[str] = spared) -> float:
            share = 0.75 if spared & set(neighbours.get(name, ())) else 1.0
            return float(10 ** (-left[name] / 10) / (cost[name] * share))

        best = max(left, key=worth)
        order.append(best)
        del left[best]
    return order


def fewest_to_spare(most: int, reached_db: Callable[[int], float], target_db: float) -> int:
    """Return the smallest count in 0 to `most` that reaches the target, by bisection; `most` if none does.

    Sparing one layer more is taken never to hurt; where it does, the count found is still one that reaches.
    """
    if reached_db(0) >= target_db:
        return 0
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        if reached_db(middle) >= target_db:
            high = middle
        else:
            low = middle
    return high
