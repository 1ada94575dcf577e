"""The recurrent cells: one layer of `torch.nn.RNN`, `GRU` or `LSTM` over a whole sequence.

Shapes: B sentences, T time steps, I input width, H hidden width.

The equations (* is element by element, s the logistic function):

    rnn   h_t = tanh(W x_t + U h_{t-1} + b)                              Elman 1990
    gru   r_t = s(W_r x_t + U_r h_{t-1} + b_r)                reset      Cho et al. 2014
          z_t = s(W_z x_t + U_z h_{t-1} + b_z)                update
          n_t = tanh(W_n x_t + b_n + r_t * (U_n h_{t-1} + b'_n))
          h_t = (1 - z_t) * n_t + z_t * h_{t-1}
    lstm  i_t = s(W_i x_t + U_i h_{t-1} + b_i)                input      Hochreiter & Schmidhuber
          f_t = s(W_f x_t + U_f h_{t-1} + b_f)                forget     1997; Gers et al. 2000
          o_t = s(W_o x_t + U_o h_{t-1} + b_o)                output
          c_t = f_t * c_{t-1} + i_t * tanh(W_c x_t + U_c h_{t-1} + b_c)
          h_t = o_t * tanh(c_t)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rnnmt.model.settings import ModelSettings

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}

# Steps for which a gated cell, where all depends on its memory, remembers before it has learnt to.
LONGEST_MEMORY = 20

# A cell's state is one tensor (K, B, H): the hidden state h and, for the LSTM, the cell state c.
STATES = {"rnn": 1, "gru": 1, "lstm": 2}


def layer_norm(settings: ModelSettings) -> nn.Module:
    """What a layer's hidden states (B, T, H) go through: layer normalisation (Ba et al. 2016).

    Of the outputs, since the fused kernels have no place for it between their gates.
    """
    return nn.LayerNorm(settings.hidden) if settings.layer_norm else nn.Identity()


class Recurrent(nn.Module):
    """One layer, one direction. The sequence is never packed: only so is the fused kernel used.

    `remembers` is how gated cells begin: see `_initialise`.
    """

    def __init__(self, cell: str, inputs: int, hidden: int, remembers: bool = False) -> None:
        super().__init__()
        self.cell = cell
        self.states = STATES[cell]
        self.hidden = hidden
        self.layer = CELLS[cell](inputs, hidden, batch_first=True)
        self._initialise(remembers)

    def forward(self, inputs: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """`inputs` (B, T, I) and the state before them (K, B, H; zeros when None).

        Returns the hidden states (B, T, H) and the state after the last step (K, B, H).
        """
        if self.states == 1:
            hidden, last = self.layer(inputs, state)
            return hidden, last
        hidden, (h, c) = self.layer(inputs, None if state is None else (state[:1], state[1:]))
        return hidden, torch.cat([h, c])

    def _initialise(self, remembers: bool) -> None:
        for name, weight in self.layer.named_parameters():
            if name.startswith("weight_ih"):
                for gate in weight.chunk(weight.shape[0] // self.hidden):
                    nn.init.xavier_uniform_(gate)
            elif name.startswith("weight_hh"):
                for gate in weight.chunk(weight.shape[0] // self.hidden):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(weight)
        # Gates stand in the order reset, update, new and input, forget, cell, output.
        biases = dict(self.layer.named_parameters())["bias_ih_l0"].detach()
        gates = torch.split(biases, self.hidden)
        if remembers and self.cell != "rnn":
            # Chrono initialisation (Tallec & Ollivier 2018): each cell has its T, from 2 to
            # LONGEST_MEMORY, keeps s(log(T - 1)) = 1 - 1/T of what it holds at each step, and
            # lets in 1/T. On "cpu", since a model that is loaded is first made without memory.
            keep = torch.empty(self.hidden, device="cpu").uniform_(1, LONGEST_MEMORY - 1).log()
            gates[1].copy_(keep)
            if self.cell == "lstm":
                gates[0].copy_(-keep)
        elif self.cell == "lstm":
            # A forget gate that starts open makes remembering the default (Gers et al. 2000,
            # Jozefowicz et al. 2015).
            nn.init.ones_(gates[1])
