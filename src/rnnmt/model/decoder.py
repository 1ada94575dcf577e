"""The decoder: one function for a whole target and for one step of a search.

Shapes: B sentences, T target and S source tokens, E embedding, H hidden width, V vocabulary,
L layers, K state tensors of the cell (1, or 2 for the LSTM).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnmt.model.attention import ATTENTIONS, Memory, SharedMemory
from rnnmt.model.cells import STATES, Recurrent, layer_norm
from rnnmt.model.dropout import SequenceDropout, WordDropout
from rnnmt.model.encoder import Encoding
from rnnmt.model.settings import ModelSettings


class State(NamedTuple):
    """What the decoder knows between two steps: a value, never changed in place."""

    layers: Tensor  # (L, K, B, H)

    def select(self, rows: Tensor) -> State:
        """The states of `rows` (N,), in that order and as often as they are named."""
        return State(self.layers.index_select(2, rows))


class Output(NamedTuple):
    features: Tensor  # (B, T, E): the output layer makes logits of them
    state: State  # after the last of the T tokens
    attention: Tensor | None  # (B, T, S) weights, None without attention


class Decoder(nn.Module):
    """Luong et al. 2015 without input feeding, so that a whole target is one call for each layer.

    The first layer's hidden states h query the attention; state and context make the attentional
    vector h + tanh(W [h; context]), plus the word vector if it is as wide, which any further layer
    reads, with residual connections too. Without attention there is no context: the source is seen
    through the first state alone.
    """

    def __init__(self, settings: ModelSettings, embedding: nn.Embedding, vocabulary: int) -> None:
        super().__init__()
        hidden, layers = settings.hidden, settings.decoder_layers
        attends = settings.attention != "none"
        self.embedding = embedding
        self.words = WordDropout(settings.word_dropout)
        self.dropout = SequenceDropout(settings.dropout)
        self.layers = nn.ModuleList(
            Recurrent(settings.cell, hidden if layer else settings.embedding, hidden, not attends)
            for layer in range(layers)
        )
        self.norms = nn.ModuleList(layer_norm(settings) for _ in range(layers))
        self.attention = ATTENTIONS[settings.attention](hidden, settings.heads) if attends else None
        self.combine = nn.Linear(2 * hidden if attends else hidden, hidden)
        self.bridge = nn.Linear(hidden, layers * STATES[settings.cell] * hidden)
        self.features = nn.Linear(hidden, settings.embedding, bias=False)
        self.output = nn.Linear(settings.embedding, vocabulary)
        nn.init.zeros_(self.output.bias)
        if settings.tie_embeddings:
            self.output.weight = embedding.weight

    def start(self, encoding: Encoding) -> State:
        """The first state, made of the encoder's final one, all that is of one fixed size."""
        first = torch.tanh(self.bridge(encoding.final))
        sentences, hidden = encoding.final.shape
        parts = first.view(sentences, len(self.layers), -1, hidden)  # (B, L, K, H)
        return State(parts.permute(1, 2, 0, 3).contiguous())

    def memory(self, encoding: Encoding, mask: Tensor) -> Memory | None:
        """What the attention looks at, `mask` (B, S) being True at tokens."""
        if self.attention is None:
            return None
        return Memory(encoding.states, self.attention.keys(encoding.states), mask)

    def forward(self, tokens: Tensor, state: State, memory: Memory | SharedMemory | None) -> Output:
        """`tokens` (B, T) that follow `state` -> the features of the tokens after each of them."""
        inputs = self.dropout(self.words(self.embedding(tokens)))
        first, *above = self.layers
        hidden, last = first(inputs, state.layers[0])
        hidden = self.norms[0](hidden)
        states, seen, weights = [last], hidden, None
        if self.attention is not None:
            context, weights = self.attention(hidden, memory)
            seen = torch.cat([hidden, context], dim=2)
        hidden = hidden + torch.tanh(self.combine(seen))
        if inputs.shape == hidden.shape:
            hidden = hidden + inputs
        for layer, norm, before in zip(above, self.norms[1:], state.layers[1:], strict=True):
            residual, last = layer(self.dropout(hidden), before)
            hidden = hidden + norm(residual)
            states.append(last)
        features = self.features(self.dropout(hidden))
        return Output(features, State(torch.stack(states)), weights)

    def logits(self, features: Tensor) -> Tensor:
        """Features (..., E) -> logits (..., V)."""
        logits: Tensor = self.output(features)
        return logits
