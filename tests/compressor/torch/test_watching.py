"""Looking on while layers run."""

import pytest
import torch
from torch import nn

from flyweight.compressor.watching import watched


def test_every_run_of_a_watched_layer_is_seen_until_the_context_ends() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    seen = list[tuple[str, int, tuple[int, ...]]]()

    def note(name: str, inputs: tuple[object, ...], output: object) -> None:
        assert isinstance(output, torch.Tensor)
        seen.append((name, len(inputs), tuple(output.shape)))

    with watched({"0": module[0], "2": module[2]}, note):
        module(torch.zeros(4, 2))
    module(torch.zeros(4, 2))
    assert seen == [("0", 1, (4, 3)), ("2", 1, (4, 1))]


def test_nobody_looks_on_any_more_after_a_failure() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(RuntimeError), watched({"layer": layer}, lambda *_: None):
        layer(torch.zeros(4, 5))
    assert not layer._forward_hooks
