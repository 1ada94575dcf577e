"""What a recurrent layer keeps: its gates over a sentence, and how far back its gradient reaches.

The equations are those of `rnnmt.model.cells`, step by step and in plain NumPy, since torch's
layers do not show their gates. Shapes: T steps, I input width, H hidden width, D = H state width
(2 H for the LSTM, whose state is the hidden state and then the cell state).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import nn

Floats = NDArray[np.float64]
GATES = {"rnn": (), "gru": ("reset", "update"), "lstm": ("input", "forget", "output")}
KEEPS = {"gru": "update", "lstm": "forget"}  # the gate that multiplies what was there before


class Weights(NamedTuple):
    """A layer's weights, the gates one below the other in torch's order."""

    inputs: Floats  # (gates H, I)
    state: Floats  # (gates H, H)
    input_bias: Floats  # (gates H,)
    state_bias: Floats  # (gates H,)


class Trace(NamedTuple):
    """A layer's run over a sequence."""

    states: Floats  # (T, D) after each step
    gates: dict[str, Floats]  # (T, H)
    jacobians: Floats  # (T, D, D) of the state after each step by the one before; or none of them


def weights(layer: nn.RNNBase) -> Weights:
    """The weights of a one-layer, one-direction `torch.nn` RNN, GRU or LSTM."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    found = dict(layer.named_parameters())
    return Weights(*(found[name].detach().double().numpy() for name in names))


def trace(cell: str, layer: Weights, inputs: Floats, with_jacobians: bool = True) -> Trace:
    """Run a layer over `inputs` (T, I) from the state zero."""
    step = {"rnn": _rnn, "gru": _gru, "lstm": _lstm}[cell]
    hidden = layer.state.shape[1]
    before = np.zeros(hidden * (2 if cell == "lstm" else 1))
    states, gates, jacobians = [], [], []
    for row in inputs:
        before, opened, jacobian = step(layer, row, before)
        states.append(before)
        gates.append(opened)
        if with_jacobians:
            jacobians.append(jacobian)
    opened_all = {
        name: np.array([opened[i] for opened in gates]) for i, name in enumerate(GATES[cell])
    }
    return Trace(np.array(states), opened_all, np.array(jacobians))


def gradient_flow(jacobians: Floats, longest: int) -> Floats:
    """||d state_T / d state_{T-k}|| for k = 1 ... `longest`, of the last of the steps (T, D, D).

    The Frobenius norm over sqrt(D): the length, root mean square over all directions, to which
    a gradient of length 1 has shrunk or grown k steps earlier. The identity gives 1.
    """
    product, flow = np.eye(jacobians.shape[1]), []
    for jacobian in jacobians[::-1][:longest]:
        product = product @ jacobian
        flow.append(np.linalg.norm(product) / np.sqrt(len(product)))
    return np.array(flow)


def spectral_radius(matrix: Floats) -> float:
    """The largest modulus of the eigenvalues: powers of the matrix grow or shrink with its own."""
    return float(np.abs(np.linalg.eigvals(matrix)).max())


def half_life(kept: Floats) -> Floats:
    """For each cell, the steps after which half of what it holds is left: ln 0.5 / ln f.

    `kept` (T, H) are the values of the gate that keeps, f their geometric mean over the steps.
    """
    logs = np.log(np.clip(kept, 1e-9, 1 - 1e-9)).mean(axis=0)
    return np.asarray(np.log(0.5) / logs)


def correlation_time(states: Floats) -> Floats:
    """For each cell of states (T, H), how long its activity stays like itself, in steps.

    The lag at which the autocorrelation falls below one half, between two lags by straight line.
    """
    centred = states - states.mean(axis=0)
    variance = np.maximum((centred**2).mean(axis=0), 1e-12)
    limit = max(1, len(states) // 2)
    lags = np.array(
        [(centred[k:] * centred[: len(centred) - k]).mean(axis=0) for k in range(limit)]
    )
    lags /= variance
    below = lags < 0.5
    first = np.where(below.any(axis=0), below.argmax(axis=0), limit - 1)
    cells = np.arange(states.shape[1])
    high, low = lags[np.maximum(first - 1, 0), cells], lags[first, cells]
    part = np.clip((high - 0.5) / np.maximum(high - low, 1e-9), 0, 1)
    return np.asarray(np.maximum(first - 1, 0) + part)


def mean_jacobian(traces: Iterable[Trace]) -> Floats:
    """Over all steps of all sequences (D, D)."""
    return np.asarray(np.concatenate([one.jacobians for one in traces]).mean(axis=0))


def _rnn(w: Weights, x: Floats, h: Floats) -> tuple[Floats, tuple[Floats, ...], Floats]:
    new = np.tanh(w.inputs @ x + w.input_bias + w.state @ h + w.state_bias)
    return new, (), _rows(1 - new**2) * w.state


def _gru(w: Weights, x: Floats, h: Floats) -> tuple[Floats, tuple[Floats, ...], Floats]:
    from_input = np.split(w.inputs @ x + w.input_bias, 3)
    from_state = np.split(w.state @ h + w.state_bias, 3)
    by_reset, by_update, by_new = np.split(w.state, 3)
    reset, update = (_logistic(from_input[i] + from_state[i]) for i in range(2))
    new = np.tanh(from_input[2] + reset * from_state[2])
    d_new = _rows(1 - new**2) * (
        _rows(reset) * by_new + _rows(from_state[2] * reset * (1 - reset)) * by_reset
    )
    jacobian = (
        np.diag(update)
        + _rows((h - new) * update * (1 - update)) * by_update
        + _rows(1 - update) * d_new
    )
    return (1 - update) * new + update * h, (reset, update), jacobian


def _lstm(w: Weights, x: Floats, state: Floats) -> tuple[Floats, tuple[Floats, ...], Floats]:
    h, c = np.split(state, 2)
    parts = np.split(w.inputs @ x + w.input_bias + w.state @ h + w.state_bias, 4)
    by_in, by_forget, by_new, by_out = np.split(w.state, 4)
    opened, forget, out = (_logistic(parts[i]) for i in (0, 1, 3))
    new = np.tanh(parts[2])
    cell = forget * c + opened * new
    shown = np.tanh(cell)
    c_by_h = (
        _rows(c * forget * (1 - forget)) * by_forget
        + _rows(new * opened * (1 - opened)) * by_in
        + _rows(opened * (1 - new**2)) * by_new
    )
    slope = out * (1 - shown**2)
    h_by_h = _rows(shown * out * (1 - out)) * by_out + _rows(slope) * c_by_h
    jacobian = np.block([[h_by_h, np.diag(slope * forget)], [c_by_h, np.diag(forget)]])
    return np.concatenate([out * shown, cell]), (opened, forget, out), jacobian


def _rows(values: Floats) -> Floats:
    """As a factor of each row of a matrix."""
    return values[:, None]


def _logistic(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))  # never overflows
