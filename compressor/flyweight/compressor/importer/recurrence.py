"""Recurrent layers in ONNX's layout: torch's own where they compute the same, else a loop over the steps.

Notation of all shapes: T steps, B rows, D directions (1 or 2), I inputs, H hidden elements.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[Tensor], Tensor]

ACTIVATIONS: Final[Mapping[str, Activation]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "softsign": functional.softsign,
    "softplus": functional.softplus,
}
"""Activations without parameters, by their names in lower case."""

USUAL: Final[Mapping[str, tuple[str, ...]]] = {
    "LSTM": ("sigmoid", "tanh", "tanh"),
    "GRU": ("sigmoid", "tanh"),
    "RNN": ("tanh",),
}


@dataclass(frozen=True, slots=True)
class Gates:
    """The weights of one direction, in ONNX's order of gates: iofc for an LSTM, zrh for a GRU.

    Attributes:
        inputs: [gates H, I].
        hidden: [gates H, H].
        bias: [2 gates H], of the inputs and of the hidden state; None for none.
        peephole: [3 H] from an LSTM's cell to its gates i, o, f; None for none.
    """

    inputs: Tensor
    hidden: Tensor
    bias: Tensor | None
    peephole: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """How a recurrent operator computes.

    Attributes:
        kind: LSTM, GRU or RNN.
        backwards: for each direction, whether it reads the steps from the last to the first.
        activations: for each direction, the names of its functions, in lower case.
        clip: cuts the arguments of activations to [-clip, clip]; zero does not.
        couples: an LSTM's forget gate is 1 - input gate.
        resets_after: a GRU's reset gate acts after the product with the hidden state.
        batch_first: rows are the first axis of all tensors.
    """

    kind: str
    backwards: tuple[bool, ...]
    activations: tuple[tuple[str, ...], ...]
    clip: float = 0.0
    couples: bool = False
    resets_after: bool = False
    batch_first: bool = False

    @property
    def as_torch(self) -> bool:
        """Whether torch's layer computes the same, but for peepholes and rows of different lengths."""
        usual = {USUAL[self.kind]} | ({("relu",)} if self.kind == "RNN" else set())
        alike = len(set(self.activations)) == 1 and self.activations[0] in usual
        return alike and not self.clip and not self.couples and (self.kind != "GRU" or self.resets_after)


class Recurrence(nn.Module):
    """An LSTM, GRU or RNN of torch that takes and gives tensors as ONNX's operator does."""

    def __init__(self, settings: Settings, directions: Sequence[Gates]) -> None:
        """Copy the weights, gates in torch's order."""
        super().__init__()
        hidden, inputs = directions[0].hidden.shape[1], directions[0].inputs.shape[1]
        options = {"bidirectional": len(directions) == 2, "bias": directions[0].bias is not None}
        self.flips = settings.backwards == (True,)
        self.batch_first = settings.batch_first
        self.cell: nn.LSTM | nn.GRU | nn.RNN
        if settings.kind == "LSTM":
            self.cell = nn.LSTM(inputs, hidden, **options)
        elif settings.kind == "GRU":
            self.cell = nn.GRU(inputs, hidden, **options)
        else:
            self.cell = nn.RNN(inputs, hidden, nonlinearity=settings.activations[0][0], **options)
        for gates, suffix in zip(directions, ("", "_reverse"), strict=False):
            parts = {"weight_ih": gates.inputs, "weight_hh": gates.hidden}
            if gates.bias is not None:
                parts["bias_ih"], parts["bias_hh"] = gates.bias.chunk(2)
            for name, value in parts.items():
                parameter = getattr(self.cell, f"{name}_l0{suffix}")
                parameter.data.copy_(_torch_order(settings.kind, value))

    def forward(
        self, x: Tensor, hidden: Tensor | None = None, cell: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return all hidden states, the last hidden state, and an LSTM's last cell.

        Args:
            x: [T, B, I].
            hidden: [D, B, H]; None for zeros.
            cell: [D, B, H], an LSTM's; None for zeros.

        Returns:
            [T, D, B, H] and [D, B, H] once or twice; with batch_first the rows come first everywhere.
        """
        if self.batch_first:
            x = x.transpose(0, 1)
            hidden, cell = (None if state is None else state.transpose(0, 1) for state in (hidden, cell))
        steps = x.flip(0) if self.flips else x
        answers, states = self._run(steps, hidden, cell)
        answers = answers.flip(0) if self.flips else answers
        directions = 2 if self.cell.bidirectional else 1
        split = answers.reshape(*answers.shape[:2], directions, self.cell.hidden_size)
        if self.batch_first:
            return split.transpose(0, 1), *(state.transpose(0, 1) for state in states)
        return split.transpose(1, 2), *states

    def _run(self, x: Tensor, hidden: Tensor | None, cell: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        if not isinstance(self.cell, nn.LSTM):
            answers, last = self.cell(x, _states(hidden, x))
            return answers, [last]
        if hidden is None and cell is None:
            answers, (last, last_cell) = self.cell(x)
        else:
            known = hidden if hidden is not None else cell
            assert known is not None, "one of the two is given"
            zeros = torch.zeros_like(known)
            pair = (zeros if hidden is None else hidden, zeros if cell is None else cell)
            answers, (last, last_cell) = self.cell(x, tuple(_states(state, x) for state in pair))
        return answers, [last, last_cell]


class LoopedRecurrence(nn.Module):
    """An LSTM, GRU or RNN step by step, for what torch's layers do not compute."""

    def __init__(self, settings: Settings, directions: Sequence[Gates]) -> None:
        """Copy the weights, gates in ONNX's order."""
        super().__init__()
        self.settings = settings
        self.inputs = nn.ParameterList([nn.Parameter(gates.inputs.clone()) for gates in directions])
        self.hidden = nn.ParameterList([nn.Parameter(gates.hidden.clone()) for gates in directions])
        biases = [
            gates.bias if gates.bias is not None else gates.inputs.new_zeros(2 * len(gates.inputs))
            for gates in directions
        ]
        self.bias = nn.ParameterList([nn.Parameter(bias.clone()) for bias in biases])
        size = directions[0].hidden.shape[1]
        holes = [
            gates.peephole if gates.peephole is not None else gates.inputs.new_zeros(3 * size)
            for gates in directions
        ]
        self.peephole = nn.ParameterList([nn.Parameter(hole.clone()) for hole in holes])

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None = None,
        hidden: Tensor | None = None,
        cell: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Return what Recurrence does; `lengths` [B] are the steps of each row, None for all steps."""
        if self.settings.batch_first:
            x = x.transpose(0, 1)
            hidden, cell = (None if state is None else state.transpose(0, 1) for state in (hidden, cell))
        zeros = x.new_zeros(x.shape[1], self.hidden[0].shape[1])
        answers, lasts, cells = [], [], []
        for direction, backwards in enumerate(self.settings.backwards):
            state = zeros if hidden is None else hidden[direction].expand_as(zeros)
            memory = zeros if cell is None else cell[direction].expand_as(zeros)
            steps = _reversed(x, lengths) if backwards else x
            every, state, memory = self._steps(direction, steps, lengths, (state, memory))
            answers.append(_reversed(every, lengths) if backwards else every)
            lasts.append(state)
            cells.append(memory)
        axes = (2, 1) if self.settings.batch_first else (1, 0)
        found = torch.stack(answers, axes[0])
        states = [torch.stack(lasts, axes[1]), torch.stack(cells, axes[1])]
        found = found.transpose(0, 1) if self.settings.batch_first else found
        return found, *(states if self.settings.kind == "LSTM" else states[:1])

    def _steps(
        self, direction: int, x: Tensor, lengths: Tensor | None, states: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        state, memory = states
        step = {"LSTM": self._lstm, "GRU": self._gru, "RNN": self._rnn}[self.settings.kind]
        every = []
        for time in range(x.shape[0]):
            next_state, next_memory = step(direction, x[time], state, memory)
            answer = next_state
            if lengths is not None:
                live = (time < lengths).unsqueeze(1)
                answer = torch.where(live, next_state, torch.zeros_like(next_state))
                next_state = torch.where(live, next_state, state)
                next_memory = torch.where(live, next_memory, memory)
            state, memory = next_state, next_memory
            every.append(answer)
        return torch.stack(every), state, memory

    def _lstm(self, direction: int, x: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; Hochreiter and Schmidhuber 1997, with ONNX's peepholes (LSTM, equations)."""
        first, second, third = self._activations(direction)
        bias_x, bias_h = self.bias[direction].chunk(2)
        total = functional.linear(x, self.inputs[direction], bias_x)
        total = total + functional.linear(state, self.hidden[direction], bias_h)
        gate_i, gate_o, gate_f, gate_c = total.chunk(4, 1)
        hole_i, hole_o, hole_f = self.peephole[direction].chunk(3)
        enter = first(self._clipped(gate_i + hole_i * memory))
        forget = first(self._clipped(gate_f + hole_f * memory))
        keep = 1 - enter if self.settings.couples else forget
        memory = keep * memory + enter * second(self._clipped(gate_c))
        leave = first(self._clipped(gate_o + hole_o * memory))
        return leave * third(memory), memory

    def _gru(self, direction: int, x: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; Cho et al. 2014, and with the reset after the product as cuDNN computes it."""
        first, second = self._activations(direction)
        bias_x, bias_h = self.bias[direction].chunk(2)
        update_x, reset_x, new_x = functional.linear(x, self.inputs[direction], bias_x).chunk(3, 1)
        update_w, reset_w, new_w = self.hidden[direction].chunk(3)
        update_b, reset_b, new_b = bias_h.chunk(3)
        update = first(self._clipped(update_x + functional.linear(state, update_w, update_b)))
        reset = first(self._clipped(reset_x + functional.linear(state, reset_w, reset_b)))
        if self.settings.resets_after:
            recalled = reset * functional.linear(state, new_w, new_b)
        else:
            recalled = functional.linear(reset * state, new_w, new_b)
        new = second(self._clipped(new_x + recalled))
        return (1 - update) * new + update * state, memory

    def _rnn(self, direction: int, x: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Take one step; Elman 1990."""
        (first,) = self._activations(direction)
        bias_x, bias_h = self.bias[direction].chunk(2)
        total = functional.linear(x, self.inputs[direction], bias_x)
        return first(self._clipped(total + functional.linear(state, self.hidden[direction], bias_h))), memory

    def _activations(self, direction: int) -> list[Activation]:
        return [ACTIVATIONS[name] for name in self.settings.activations[direction]]

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(-self.settings.clip, self.settings.clip) if self.settings.clip else x


def _torch_order(kind: str, gates: Tensor) -> Tensor:
    """Return stacked gates in torch's order: ifgo from iofc, rzn from zrh."""
    if kind == "LSTM":
        enter, leave, forget, new = gates.chunk(4)
        return torch.cat([enter, forget, new, leave])
    if kind == "GRU":
        update, reset, new = gates.chunk(3)
        return torch.cat([reset, update, new])
    return gates


def _states(state: Tensor | None, x: Tensor) -> Tensor | None:
    """Return initial states for every row; a constant one of a graph traced with one row fits any number."""
    return None if state is None else state.expand(-1, x.shape[1], -1).contiguous()


def _reversed(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Return the steps of each row in reverse order, those beyond its length where they are."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps).to(torch.int64)
    return x.gather(0, places.unsqueeze(2).expand_as(x))
