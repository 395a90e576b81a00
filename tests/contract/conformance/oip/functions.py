"""The models of the suite as functions of numpy arrays, for servers that host Python.

It stands alone (numpy only), because such servers get a copy of this file beside their model.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

Tensors = dict[str, Any]


def identity(inputs: Tensors) -> Tensors:
    """Return the input."""
    return {"OUTPUT": inputs["INPUT"]}


def add_sub(inputs: Tensors) -> Tensors:
    """Return the sum and the difference of the inputs."""
    a, b = inputs["INPUT0"], inputs["INPUT1"]
    return {"OUTPUT0": a + b, "OUTPUT1": a - b}


def transpose(inputs: Tensors) -> Tensors:
    """Return the matrix with its axes exchanged."""
    return {"OUTPUT": np.ascontiguousarray(inputs["INPUT"].T)}


def slow(inputs: Tensors) -> Tensors:
    """Take a tenth of a millisecond for each round, and return 1."""
    time.sleep(float(inputs["ROUNDS"].ravel()[0]) / 10_000)
    return {"OUTPUT": np.ones(1, np.float32)}


class Counter:
    """Sums what each sequence sends; the server tells the sequence and its start in control tensors."""

    def __init__(self) -> None:
        self._sums: dict[int, int] = {}

    def __call__(self, inputs: Tensors) -> Tensors:
        """Return the sum so far."""
        sequence = int(inputs["CORRID"].ravel()[0])
        before = 0 if inputs["START"].ravel()[0] else self._sums.get(sequence, 0)
        self._sums[sequence] = before + int(inputs["INPUT"].ravel()[0])
        return {"OUTPUT": np.full_like(inputs["INPUT"], self._sums[sequence])}


def function_of(model: str) -> Callable[[Tensors], Tensors]:
    """Return the function of a model of the suite by its name."""
    if model.startswith("identity_"):
        return identity
    named: dict[str, Callable[[], Callable[[Tensors], Tensors]]] = {
        "add_sub": lambda: add_sub,
        "transpose": lambda: transpose,
        "scalar": lambda: identity,
        "classes": lambda: identity,
        "slow": lambda: slow,
        "counter": Counter,
    }
    return named[model]()
