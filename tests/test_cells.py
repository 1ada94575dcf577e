"""The cells against the textbook equations, written out in NumPy, and against torch.nn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from rnnmt.model.cells import CELLS, STATES, Recurrent

torch.set_num_threads(1)

Array = NDArray[np.float64]
CELL_NAMES = ("rnn", "gru", "lstm")
SENTENCES, STEPS, INPUTS, HIDDEN = 3, 7, 5, 4


def make(cell: str, seed: int) -> Recurrent:
    """A layer in float64 with random weights, biases included."""
    torch.manual_seed(seed)
    layer = Recurrent(cell, INPUTS, HIDDEN).double()
    with torch.no_grad():
        for weight in layer.parameters():
            weight.normal_()
    return layer


def sequence(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SENTENCES, STEPS, INPUTS, generator=generator, dtype=torch.float64)


def first_state(cell: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (STATES[cell], SENTENCES, HIDDEN)
    return torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def parameters(layer: Recurrent, gates: int) -> list[tuple[Array, Array, Array, Array]]:
    """W, U and both biases of each gate, in torch's order of the gates."""
    named = {name: weight.detach().numpy() for name, weight in layer.layer.named_parameters()}
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return list(zip(*(np.split(named[name], gates) for name in names), strict=True))


def rnn_step(layer: Recurrent, x: Array, state: Array) -> Array:
    [(w, u, b, d)] = parameters(layer, 1)
    (h,) = state
    return np.stack([np.tanh(w @ x + b + u @ h + d)])


def gru_step(layer: Recurrent, x: Array, state: Array) -> Array:
    (w_r, u_r, b_r, d_r), (w_z, u_z, b_z, d_z), (w_n, u_n, b_n, d_n) = parameters(layer, 3)
    (h,) = state
    r = sigmoid(w_r @ x + b_r + u_r @ h + d_r)
    z = sigmoid(w_z @ x + b_z + u_z @ h + d_z)
    n = np.tanh(w_n @ x + b_n + r * (u_n @ h + d_n))
    return np.stack([(1.0 - z) * n + z * h])


def lstm_step(layer: Recurrent, x: Array, state: Array) -> Array:
    """The equations with [h_{t-1}, x_t] joined, in the order f, i, C~, C, o, h."""
    i_gate, f_gate, c_gate, o_gate = parameters(layer, 4)
    h, c = state

    def affine(gate: tuple[Array, Array, Array, Array]) -> Array:
        w, u, b, d = gate
        result: Array = np.hstack([u, w]) @ np.concatenate([h, x]) + (b + d)
        return result

    f = sigmoid(affine(f_gate))
    i = sigmoid(affine(i_gate))
    candidate = np.tanh(affine(c_gate))
    c = f * c + i * candidate
    o = sigmoid(affine(o_gate))
    return np.stack([o * np.tanh(c), c])


STEP = {"rnn": rnn_step, "gru": gru_step, "lstm": lstm_step}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_each_step_is_the_textbook_equation(cell: str, seed: int) -> None:
    layer, inputs, state = make(cell, seed), sequence(seed + 10), first_state(cell, seed + 20)
    hidden, last = layer(inputs, state)
    assert hidden.shape == (SENTENCES, STEPS, HIDDEN)
    for sentence in range(SENTENCES):
        expected = state[:, sentence].numpy()
        for t in range(STEPS):
            expected = STEP[cell](layer, inputs[sentence, t].numpy(), expected)
            np.testing.assert_allclose(
                hidden[sentence, t].detach().numpy(), expected[0], rtol=1e-10, atol=1e-12
            )
        np.testing.assert_allclose(
            last[:, sentence].detach().numpy(), expected, rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_without_a_state_it_starts_from_zeros(cell: str) -> None:
    layer, inputs = make(cell, 1), sequence(2)
    zeros = torch.zeros_like(first_state(cell, 0))
    for given, expected in zip(layer(inputs), layer(inputs, zeros), strict=True):
        torch.testing.assert_close(given, expected, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_equals_torch_nn(cell: str) -> None:
    layer, inputs, state = make(cell, 3), sequence(4), first_state(cell, 5)
    peers = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}
    peer = peers[cell](INPUTS, HIDDEN).double()
    weights = layer.layer.state_dict()
    peer.load_state_dict({name.removesuffix("_l0"): w for name, w in weights.items()})
    hidden, last = layer(inputs, state)
    now = (state[0], state[1]) if cell == "lstm" else state[0]
    for t in range(STEPS):
        now = peer(inputs[:, t], now)
        h = now[0] if cell == "lstm" else now
        torch.testing.assert_close(hidden[:, t], h)
    torch.testing.assert_close(last, torch.stack(now) if cell == "lstm" else now[None])


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_the_returned_state_is_that_of_the_last_step(cell: str) -> None:
    layer, inputs = make(cell, 6), sequence(7)
    hidden, last = layer(inputs, first_state(cell, 8))
    assert last.shape == (STATES[cell], SENTENCES, HIDDEN)
    torch.testing.assert_close(last[0], hidden[:, -1], rtol=0.0, atol=0.0)


@pytest.mark.parametrize("cut", range(1, STEPS))
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_two_calls_with_carried_state_are_one_call(cell: str, cut: int) -> None:
    layer, inputs, state = make(cell, 9), sequence(10), first_state(cell, 11)
    hidden, last = layer(inputs, state)
    before, between = layer(inputs[:, :cut], state)
    after, end = layer(inputs[:, cut:], between)
    torch.testing.assert_close(torch.cat([before, after], dim=1), hidden)
    torch.testing.assert_close(end, last)


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize("cell", CELL_NAMES)
def test_only_gates_that_keep_and_let_in_have_biases_at_the_start(
    cell: str, remembers: bool
) -> None:
    layer = Recurrent(cell, INPUTS, HIDDEN, remembers).layer
    total = layer.bias_ih_l0 + layer.bias_hh_l0  # their sum is the bias of the equations
    # torch's order of gates: update is the second of a GRU; input and forget lead in an LSTM
    biased = {"gru": {1} if remembers else set(), "lstm": {0, 1} if remembers else {1}}
    for place, bias in enumerate(total.detach().split(HIDDEN)):
        assert bool(bias.any()) == (place in biased.get(cell, set()))


def kept(layer: Recurrent) -> Tensor:
    """What is left of a state of ones after a step, by what the layer does with zero input."""
    nn.init.zeros_(layer.layer.weight_hh_l0)
    _, last = layer(torch.zeros(1, 1, INPUTS), torch.ones(layer.states, 1, layer.hidden))
    return last[-1, 0].detach()  # the GRU's hidden state, the LSTM's cell state


def test_a_fresh_lstm_forgets_less_than_half() -> None:
    expected = torch.full((HIDDEN,), 1.0).sigmoid()
    torch.testing.assert_close(kept(Recurrent("lstm", INPUTS, HIDDEN)), expected)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_fresh_cells_remember_for_two_to_twenty_steps(cell: str) -> None:
    steps = 1 / (1 - kept(Recurrent(cell, INPUTS, 500, remembers=True)))
    assert 2 <= steps.min() < 3
    assert 19 < steps.max() <= 20.01
    assert steps.mean().item() == pytest.approx(11, abs=1)


def test_a_fresh_lstm_that_remembers_lets_in_what_it_does_not_keep() -> None:
    bias = Recurrent("lstm", INPUTS, HIDDEN, remembers=True).layer.bias_ih_l0.detach()
    let_in, keeps = bias.sigmoid().split(HIDDEN)[:2]
    torch.testing.assert_close(let_in + keeps, torch.ones(HIDDEN))


@pytest.mark.parametrize("cell", CELL_NAMES)
def test_every_recurrent_matrix_starts_orthogonal(cell: str) -> None:
    for gate in Recurrent(cell, INPUTS, HIDDEN).layer.weight_hh_l0.detach().split(HIDDEN):
        torch.testing.assert_close(gate @ gate.t(), torch.eye(HIDDEN), rtol=0.0, atol=1e-5)


def test_there_are_three_cells() -> None:
    assert set(CELLS) == set(STATES) == set(CELL_NAMES)
