"""Compares an imported module with what ONNX Runtime answers for the same inputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import nn

from flyweight.compressor.errors import ModelError
from flyweight.compressor.foreign import quiet, run_foreign
from flyweight.compressor.model import Array
from flyweight.compressor.sessions import Session, SessionSettings

TOLERANCE: Final = 1e-5
"""Largest difference of an output, relative to its largest magnitude (at least 1)."""


def check_answers(module: nn.Module, path: Path, feeds: Sequence[Mapping[str, Array]]) -> None:
    """Check a module against the graph it was made from; integers must be equal.

    ONNX Runtime's own optimisations may round where the graph does not (a product with weights stored as
    integers): a module that answers as the graph does without them is right as well.

    Raises:
        ModelError: the graph does not run, the module does not, or an output differs.
    """
    served = Session(path, SessionSettings(threads=torch.get_num_threads()))
    inputs = [spec.name for spec in served.signature.inputs]
    for feed in feeds:
        answers = answers_of(module, path, [feed[name] for name in inputs])
        try:
            _compare_all(served, feed, answers)
        except ModelError:
            _compare_all(Session(path, SessionSettings(optimise=False)), feed, answers)


def _compare_all(session: Session, feed: Mapping[str, Array], answers: Sequence[Array]) -> None:
    for (name, wanted), answer in zip(session.run(feed).items(), answers, strict=True):
        _compare(session.path, name, wanted, answer)


def answers_of(module: nn.Module, path: Path, arrays: Sequence[Array]) -> list[Array]:
    """Return what a module made from the graph at `path` answers.

    Raises:
        ModelError: it fails.
    """
    with quiet(), torch.no_grad():
        returned = run_foreign(
            lambda: module(*(torch.from_numpy(np.array(array)) for array in arrays)),
            lambda reason: ModelError(
                f"The torch module made from {path} fails where ONNX Runtime does not ({reason})."
            ),
        )
    tensors = returned if isinstance(returned, tuple) else (returned,)
    return [
        (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).detach().numpy() for tensor in tensors
    ]


def _compare(path: Path, name: str, wanted: Array, found: Array) -> None:
    told = f"The torch module made from {path} cannot be trusted: its output {name!r}"
    if wanted.shape != found.shape or wanted.dtype != found.dtype:
        raise ModelError(
            f"{told} is {found.dtype}{list(found.shape)} instead of {wanted.dtype}{list(wanted.shape)}."
        )
    if wanted.dtype.kind != "f":
        if not np.array_equal(wanted, found):
            raise ModelError(f"{told} differs from ONNX Runtime's, and integers must be equal.")
        return
    difference = relative_difference(wanted, found)
    # A half-precision number is not known better than its own steps.
    if not difference <= max(
        TOLERANCE, 4 * float(np.finfo(wanted.dtype).eps) if wanted.itemsize == 2 else 0.0
    ):
        raise ModelError(f"{told} differs from ONNX Runtime's by {difference:.1e} of its range.")


def relative_difference(wanted: Array, found: Array) -> float:
    """Return max |found - wanted| / max(1, max |wanted|) over what is finite; else infinity."""
    ours, theirs = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(theirs)
    if (
        not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True)
        or not np.isfinite(ours[finite]).all()
    ):
        return float("inf")
    scale = max(1.0, float(np.abs(theirs[finite]).max(initial=0.0)))
    return float(np.abs(ours[finite] - theirs[finite]).max(initial=0.0)) / scale
