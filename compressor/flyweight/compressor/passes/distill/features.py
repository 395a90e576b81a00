"""Features inside a module: caught while it runs, and paired between a student and its teacher."""

import fnmatch
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from flyweight.compressor.errors import PassError
from flyweight.compressor.watching import watched

MOST_PAIRS: Final = 4
"""Layers that are paired without being asked for: the ends of the stages of most networks."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A layer of the student and one of the teacher, and what their outputs look like for one row.

    Attributes:
        student: name of the student's layer.
        teacher: name of the teacher's.
        axis: along which their numbers of channels may differ.
        channels: of the student and of the teacher along that axis.
    """

    student: str
    teacher: str
    axis: int
    channels: tuple[int, int]


@contextmanager
def caught(module: nn.Module, names: Sequence[str]) -> Iterator[Mapping[str, Tensor]]:
    """Yield a mapping that holds, after every run of `module`, what each of the named layers returned last.

    Layers that were not reached, or returned something else than one tensor, are missing from it.
    """
    features: dict[str, Tensor] = {}
    layers = dict(module.named_modules(remove_duplicate=False))

    def remember(name: str, _inputs: object, output: object) -> None:
        features.pop(name, None)  # the order of the mapping is the order of the run
        if isinstance(output, Tensor):
            features[name] = output

    with watched({name: layers[name] for name in names}, remember):
        yield features


def features_of(module: nn.Module, example: Sequence[Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shapes of what the layers of a module return for `example`, in the order of the run.

    Left out are layers that return no tensor of floats with a feature axis, and those that return the
    module's own answer.
    """
    names = [name for name, _ in module.named_modules() if name]
    with caught(module, names) as features, torch.no_grad():
        returned = module.eval()(*example)
        ends = {id(returned)} | (
            {id(part) for part in returned} if isinstance(returned, tuple | list) else set()
        )
        if isinstance(returned, Mapping):
            ends |= {id(part) for part in returned.values()}
        return {
            name: tuple(tensor.shape)
            for name, tensor in features.items()
            if tensor.ndim >= 2 and tensor.is_floating_point() and id(tensor) not in ends
        }


def pair_layers(
    student: nn.Module, teacher: nn.Module, example: Sequence[Tensor], patterns: Sequence[str] = ()
) -> list[Pair]:
    """Return layers of a student and its teacher whose features can be compared.

    Layers of one name are paired, as cut and narrowed copies have them; without any such name, the last
    layers of each spatial shape are. Without patterns the last pair for each spatial shape is taken, of
    at most `MOST_PAIRS` shapes, those nearest the end.

    Args:
        student: in evaluation mode.
        teacher: in evaluation mode.
        example: one batch of each input of both.
        patterns: globs over the names of the student's layers; empty to choose.

    Raises:
        PassError: a pattern fits no layer, or no two layers can be compared.
    """
    own, theirs = features_of(student, example), features_of(teacher, example)
    for pattern in patterns:
        if not fnmatch.filter(own, pattern):
            raise PassError(f"No layer of the model inside it is called like {pattern!r}; {_listed(own)}.")
    if any(name in theirs for name in own):
        candidates = [(name, name) for name in own if name in theirs]
    else:
        candidates = _by_shape(own, theirs)
    pairs = [pair for one, other in candidates if (pair := _pair(one, own[one], other, theirs[other]))]
    if patterns:
        pairs = [pair for pair in pairs if any(fnmatch.fnmatch(pair.student, glob) for glob in patterns)]
    else:
        pairs = _last_of_each_shape(pairs, own)
    if not pairs:
        raise PassError(
            "No layer of the model has features of the same spatial shape as one of the original; "
            "distil from its answers alone."
        )
    return pairs


def _pair(student: str, own: tuple[int, ...], teacher: str, theirs: tuple[int, ...]) -> Pair | None:
    """Return a pair of layers whose shapes differ along one axis at most."""
    if len(own) != len(theirs):
        return None
    differing = [axis for axis, (a, b) in enumerate(zip(own, theirs, strict=True)) if a != b]
    if len(differing) > 1 or differing == [0]:
        return None
    axis = differing[0] if differing else (1 if len(own) == 4 else len(own) - 1)
    return Pair(student, teacher, axis, (own[axis], theirs[axis]))


def _by_shape(
    own: Mapping[str, tuple[int, ...]], theirs: Mapping[str, tuple[int, ...]]
) -> list[tuple[str, str]]:
    """Return the last layers of each shape beside the channels, for images channels first."""
    last = {(len(shape), shape[2:]): name for name, shape in theirs.items()}
    chosen = {(len(shape), shape[2:]): name for name, shape in own.items()}
    return [(name, last[key]) for key, name in chosen.items() if key in last]


def _last_of_each_shape(pairs: list[Pair], own: Mapping[str, tuple[int, ...]]) -> list[Pair]:
    last: dict[tuple[int, ...], Pair] = {}
    for pair in pairs:
        shape = own[pair.student]
        spatial = shape[: pair.axis] + shape[pair.axis + 1 :]
        # One row of numbers says little beside a map of features: only where there are no maps.
        if math.prod(spatial) > 1 or all(len(other) == 2 for other in own.values()):
            last.pop(spatial, None)
            last[spatial] = pair
    return list(last.values())[-MOST_PAIRS:]


def _listed(names: Mapping[str, tuple[int, ...]]) -> str:
    shown = ", ".join(list(names)[:5])
    return f"its layers are {shown}" + (f" and {len(names) - 5} more" if len(names) > 5 else "")
