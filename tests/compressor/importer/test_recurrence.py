"""Recurrent operators: torch's layers and the loop, against ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper
from torch import nn

from flyweight.compressor.errors import ModelError
from flyweight.compressor.importer import import_onnx
from flyweight.compressor.importer.recurrence import Gates, LoopedRecurrence, Recurrence, Settings

Make = Callable[..., Path]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, INPUTS, HIDDEN = 5, 3, 4


def recurrent(make_graph: Make, kind: str, states: int = 0, **attributes: Any) -> Path:
    random = np.random.default_rng(1)
    directions = 2 if attributes.get("direction") == "bidirectional" else 1

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 0.5, shape).astype(np.float32)

    rows = GATES[kind] * HIDDEN
    given = ["h", "c"][:states]
    outputs = ["y", "y_h", "y_c"] if kind == "LSTM" else ["y", "y_h"]
    return make_graph(
        [helper.make_node(kind, ["x", "w", "r", "b", "", *given], outputs, hidden_size=HIDDEN, **attributes)],
        {"x": [STEPS, "batch", INPUTS], **{name: [directions, "batch", HIDDEN] for name in given}},
        {
            "w": weights(directions, rows, INPUTS),
            "r": weights(directions, rows, HIDDEN),
            "b": weights(directions, 2 * rows),
        },
        outputs,
    )


def feeds(states: int, directions: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(2)
    shapes = {"x": (STEPS, INPUTS), "h": (directions, HIDDEN), "c": (directions, HIDDEN)}
    names = ["x", "h", "c"][: 1 + states]
    return [
        {
            name: random.normal(size=(shapes[name][0], rows, shapes[name][1])).astype(np.float32)
            for name in names
        }
        for rows in (1, 3)
    ]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(
    ("kind", "attributes"), [("LSTM", {}), ("GRU", {"linear_before_reset": 1}), ("RNN", {})]
)
def test_torch_layers_answer_in_every_direction(
    make_graph: Make, kind: str, attributes: dict[str, int], direction: str
) -> None:
    path = recurrent(make_graph, kind, direction=direction, **attributes)
    module = import_onnx(path, feeds(0, 1))
    assert any(isinstance(layer, nn.LSTM | nn.GRU | nn.RNN) for layer in module.modules())


@pytest.mark.parametrize(("kind", "states"), [("LSTM", 2), ("LSTM", 1), ("GRU", 1), ("RNN", 1)])
def test_states_are_taken_and_given(make_graph: Make, kind: str, states: int) -> None:
    path = recurrent(make_graph, kind, states, direction="bidirectional")
    import_onnx(path, feeds(states, 2))


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("GRU", {"linear_before_reset": 0}),
        ("GRU", {"activations": ["Sigmoid", "Softsign"], "direction": "reverse"}),
        ("LSTM", {"activations": ["Sigmoid", "Relu", "Tanh"]}),
        ("LSTM", {"clip": 0.3}),
        ("LSTM", {"input_forget": 1}),
        ("RNN", {"activations": ["Softsign", "Relu"], "direction": "bidirectional"}),
    ],
)
def test_the_loop_computes_what_torch_layers_do_not(
    make_graph: Make, kind: str, attributes: dict[str, Any]
) -> None:
    module = import_onnx(recurrent(make_graph, kind, **attributes), feeds(0, 1))
    assert any(isinstance(layer, LoopedRecurrence) for layer in module.modules())


def test_unknown_activations_are_refused(make_graph: Make) -> None:
    path = recurrent(make_graph, "RNN", activations=["Affine"])
    with pytest.raises(ModelError, match=r"activations the importer does not know \(affine\)"):
        import_onnx(path, feeds(0, 1))


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_the_loop_and_the_layer_agree(kind: str) -> None:
    torch.manual_seed(0)
    usual = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}[kind]
    settings = Settings(kind, (False, True), (usual, usual), resets_after=True)
    rows = GATES[kind] * HIDDEN
    gates = [
        Gates(torch.randn(rows, INPUTS), torch.randn(rows, HIDDEN), torch.randn(2 * rows)) for _ in range(2)
    ]
    x = torch.randn(STEPS, 2, INPUTS)
    for ours, theirs in zip(
        LoopedRecurrence(settings, gates)(x), Recurrence(settings, gates)(x), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
