"""Attention: how much each source position counts for each target position.

Shapes: B sentences, T target and S source tokens, H hidden width, A = H width of the keys.

    score(i, j) = g h_i . s_j / sqrt(H)        dot       Luong et al. 2015, scaled
                = h_i . (W s_j)                general   Luong et al. 2015
                = v . tanh(W h_i + U s_j)      additive  Bahdanau et al. 2015

    context_i = sum_j softmax_j(score(i, j)) s_j

With several heads, each has the scores and the context of its own part of h, s, W s and v
(Vaswani et al. 2017), and the weights shown are the mean of theirs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class Memory(NamedTuple):
    """What attention looks at; the keys are projected once for a sentence."""

    states: Tensor  # (B, S, H) encoder states
    keys: Tensor  # (B, S, A)
    mask: Tensor  # (B, S) True at tokens, False at padding

    def select(self, rows: Tensor) -> Memory:
        """The memories of `rows` (N,), in that order and as often as they are named."""
        return Memory(*(part.index_select(0, rows) for part in self))


class SharedMemory(NamedTuple):
    """The memories of B sentences as N hypotheses see them, which stand sentence by sentence.

    Selecting hypotheses copies no memory until half of the sentences have none left.
    """

    memory: Memory
    rows: NDArray[np.int64]  # (N,) ascending: the sentence of each hypothesis

    @classmethod
    def of(cls, memory: Memory) -> SharedMemory:
        """One hypothesis for each sentence."""
        return cls(memory, np.arange(len(memory.states)))

    def select(self, chosen: Tensor) -> SharedMemory:
        """The hypotheses `chosen` (N,), still sentence by sentence."""
        rows = self.rows[chosen.numpy()]
        alive = np.flatnonzero(np.bincount(rows))
        if 2 * len(alive) > len(self.memory.states):
            return self._replace(rows=rows)
        memory = self.memory.select(torch.from_numpy(alive))
        return SharedMemory(memory, np.searchsorted(alive, rows))

    def attend(self, attention: Attention, query: Tensor) -> tuple[Tensor, Tensor]:
        """Contexts (N, 1, H) and weights (N, 1, S) for one query (N, 1, H) of each hypothesis.

        The hypotheses of a sentence stand where a target's time steps would.
        """
        sentences, hypotheses = len(self.memory.states), len(self.rows)
        counts = np.bincount(self.rows, minlength=sentences)
        width = int(counts.max())
        if hypotheses == sentences * width:
            contexts, weights = attention.forward(query.view(sentences, width, -1), self.memory)
            return contexts.flatten(0, 1).unsqueeze(1), weights.flatten(0, 1).unsqueeze(1)
        slots = np.arange(hypotheses) - (counts.cumsum() - counts)[self.rows]
        places = torch.from_numpy(self.rows * width + slots)
        grid = query.new_zeros(sentences * width, 1, query.shape[2]).index_copy_(0, places, query)
        contexts, weights = attention.forward(grid.view(sentences, width, -1), self.memory)
        return (
            contexts.flatten(0, 1).index_select(0, places).unsqueeze(1),
            weights.flatten(0, 1).index_select(0, places).unsqueeze(1),
        )


class Attention(nn.Module):
    """The base of the three kinds: they differ in keys and scores only."""

    def __init__(self, hidden: int, heads: int = 1) -> None:
        super().__init__()
        self.hidden, self.heads = hidden, heads

    def keys(self, states: Tensor) -> Tensor:
        """Encoder states (B, S, H) as what queries are compared with (B, S, A)."""
        return states

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Similarity (B, T, S) of decoder states (B, T, H) with keys (B, S, A)."""
        return query @ keys.transpose(1, 2)

    def head_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """The similarity of each head (B, heads, T, S)."""
        scores = self.scores(self._split(query).flatten(0, 1), self._split(keys).flatten(0, 1))
        return scores.view(-1, self.heads, *scores.shape[1:])

    def forward(self, query: Tensor, memory: Memory | SharedMemory) -> tuple[Tensor, Tensor]:
        """Decoder states (B, T, H) -> contexts (B, T, H) and weights (B, T, S), which sum to 1."""
        if isinstance(memory, SharedMemory):
            return memory.attend(self, query)
        if self.heads > 1:
            return self._forward_heads(query, memory)
        scores = self.scores(query, memory.keys)
        scores = scores.masked_fill(~memory.mask.unsqueeze(1), -math.inf)
        weights = scores.softmax(dim=2)
        return weights @ memory.states, weights

    def _forward_heads(self, query: Tensor, memory: Memory) -> tuple[Tensor, Tensor]:
        scores = self.head_scores(query, memory.keys)
        scores = scores.masked_fill(~memory.mask[:, None, None], -math.inf)
        weights = scores.softmax(dim=3)
        contexts = weights @ self._split(memory.states)  # (B, heads, T, H / heads)
        return contexts.transpose(1, 2).flatten(2), weights.mean(dim=1)

    def _split(self, features: Tensor) -> Tensor:
        """(B, L, W) -> (B, heads, L, W / heads)"""
        return features.view(*features.shape[:2], self.heads, -1).transpose(1, 2)


class DotAttention(Attention):
    """Scaled, since the variance of a dot product grows with the width, and by a g that is learned:
    hidden states are far below 1, so that without it all scores would be nearly the same.
    """

    def __init__(self, hidden: int, heads: int = 1) -> None:
        super().__init__(hidden, heads)
        self.scale = nn.Parameter(torch.ones(()))

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        scale = self.scale / math.sqrt(self.hidden // self.heads)
        return super().scores(query * scale, keys)


class GeneralAttention(Attention):
    def __init__(self, hidden: int, heads: int = 1) -> None:
        super().__init__(hidden, heads)
        self.project = nn.Linear(hidden, hidden, bias=False)

    def keys(self, states: Tensor) -> Tensor:
        projected: Tensor = self.project(states)
        return projected


class AdditiveAttention(Attention):
    def __init__(self, hidden: int, heads: int = 1) -> None:
        super().__init__(hidden, heads)
        self.project = nn.Linear(hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden)
        self.energy = nn.Parameter(torch.empty(hidden))
        nn.init.uniform_(self.energy, -(hidden**-0.5), hidden**-0.5)

    def keys(self, states: Tensor) -> Tensor:
        projected: Tensor = self.project(states)
        return projected

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return self._energies(query, keys) @ self.energy

    def head_scores(self, query: Tensor, keys: Tensor) -> Tensor:
        energies = self._energies(query, keys) * self.energy
        own = energies.view(*energies.shape[:3], self.heads, -1)  # (B, T, S, heads, A / heads)
        return own.sum(dim=4).permute(0, 3, 1, 2)

    def _energies(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))  # (B, T, S, A)


ATTENTIONS: dict[str, type[Attention]] = {
    "dot": DotAttention,
    "general": GeneralAttention,
    "additive": AdditiveAttention,
}
