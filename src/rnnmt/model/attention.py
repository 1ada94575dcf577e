"""Attention: how much each source position counts for each target position.

Shapes: B sentences, T target and S source tokens, H hidden width, A = H width of the keys.

    score(i, j) = h_i . s_j / sqrt(H)          dot       Luong et al. 2015, scaled
                = h_i . (W s_j)                general   Luong et al. 2015
                = v . tanh(W h_i + U s_j)      additive  Bahdanau et al. 2015

    context_i = sum_j softmax_j(score(i, j)) s_j
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Memory(NamedTuple):
    """What attention looks at; the keys are projected once for a sentence."""

    states: Tensor  # (B, S, H) encoder states
    keys: Tensor  # (B, S, A)
    mask: Tensor  # (B, S) True at tokens, False at padding

    def select(self, rows: Tensor) -> Memory:
        """The memories of `rows` (N,), in that order and as often as they are named."""
        return Memory(*(part.index_select(0, rows) for part in self))


class Attention(nn.Module):
    """The base of the three kinds: they differ in keys and scores only."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def keys(self, states: Tensor) -> Tensor:
        """Encoder states (B, S, H) as what queries are compared with (B, S, A)."""
        return states

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Similarity (B, T, S) of decoder states (B, T, H) with keys (B, S, A)."""
        return query @ keys.transpose(1, 2)

    def forward(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        """Decoder states (B, T, H) -> contexts (B, T, H) and weights (B, T, S), which sum to 1."""
        scores = self.scores(query, memory.keys)
        scores = scores.masked_fill(~memory.mask.unsqueeze(1), -math.inf)
        weights = scores.softmax(dim=2)
        return weights @ memory.states, weights


class DotAttention(Attention):
    """Scaled, since the variance of a dot product grows with the width."""

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return super().scores(query, keys) / math.sqrt(self.hidden)


class GeneralAttention(Attention):
    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.project = nn.Linear(hidden, hidden, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        projected: Tensor = self.project(states)
        return projected


class AdditiveAttention(Attention):
    def __init__(self, hidden: int) -> None:
        super().__init__(hidden)
        self.project = nn.Linear(hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden)
        self.energy = nn.Parameter(torch.empty(hidden).uniform_(-1, 1) / math.sqrt(hidden))

    def keys(self, states: Tensor) -> Tensor:
        projected: Tensor = self.project(states)
        return projected

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        energies = torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))  # (B, T, S, A)
        return energies @ self.energy


ATTENTIONS: dict[str, type[Attention]] = {
    "dot": DotAttention,
    "general": GeneralAttention,
    "additive": AdditiveAttention,
}
