"""How much of a signal is left."""

import numpy as np
import pytest

from flyweight.compressor.noise import decibels, signal_to_noise


def test_an_error_of_a_tenth_is_twenty_decibels() -> None:
    signal = np.array([[3.0, -4.0]], np.float32)
    assert signal_to_noise(signal, signal * np.float32(1.1)) == pytest.approx(20, abs=1e-4)


def test_no_noise_is_infinitely_little_and_no_signal_is_all_noise() -> None:
    assert signal_to_noise(np.ones(3), np.ones(3)) == float("inf")
    assert decibels(0.0, 1.0) == pytest.approx(-3000)
