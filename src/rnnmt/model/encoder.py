"""The bidirectional encoder. Shapes: B sentences, S source tokens, E embedding, H hidden width."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnmt.model.cells import Recurrent, layer_norm
from rnnmt.model.dropout import SequenceDropout, WordDropout
from rnnmt.model.settings import ModelSettings


class Encoding(NamedTuple):
    """What the encoder says of a batch of sentences."""

    states: Tensor  # (B, S, H): one state for each source token, both directions side by side
    final: Tensor  # (B, H): the state after the last token of each direction


class Encoder(nn.Module):
    """Reads each source sentence in both directions (Schuster & Paliwal 1997)."""

    def __init__(self, settings: ModelSettings, embedding: nn.Embedding) -> None:
        super().__init__()
        self.embedding = embedding
        self.words = WordDropout(settings.word_dropout)
        self.dropout = SequenceDropout(settings.dropout)
        half = settings.hidden // 2
        widths = [settings.embedding] + [settings.hidden] * (settings.encoder_layers - 1)
        # Without attention, all that the decoder gets of a sentence is remembered to its end.
        remembers = settings.attention == "none"
        self.forwards, self.backwards = (
            nn.ModuleList(Recurrent(settings.cell, w, half, remembers) for w in widths)
            for _ in range(2)
        )
        self.norms = nn.ModuleList(layer_norm(settings) for _ in widths)
        if remembers:  # nothing reads the last layer's states but the final ones, before the norm
            self.norms[-1] = nn.Identity()

    def forward(self, source: Tensor, lengths: Tensor) -> Encoding:
        """`source` (B, S) token ids, `lengths` (B,) of at least 1; padding changes nothing."""
        last = (lengths - 1).unsqueeze(1)
        # Mirrored, token t of a sentence stands at length - 1 - t and the padding stays behind it,
        # so that the backward direction sees the sentence first. Its own inverse.
        mirror = (last - torch.arange(source.shape[1])) % source.shape[1]
        states = self.dropout(self.words(self.embedding(source)))
        for layer, (forwards, backwards, norm) in enumerate(
            zip(self.forwards, self.backwards, self.norms, strict=True)
        ):
            inputs = self.dropout(states) if layer else states
            right, _ = forwards(inputs)
            left, _ = backwards(_reorder(inputs, mirror))
            outputs = norm(torch.cat([right, _reorder(left, mirror)], dim=2))
            # Residual connection, of the word vectors too if they are as wide: attention then has
            # the words themselves in view.
            states = outputs + states if outputs.shape == states.shape else outputs
            final = torch.cat([_at(right, last), _at(left, last)], dim=1)
        return Encoding(states, final)


def _reorder(sequence: Tensor, order: Tensor) -> Tensor:
    """`sequence` (B, S, W) with its time steps in the `order` (B, S) of each sentence."""
    return sequence.gather(1, order.unsqueeze(2).expand(-1, -1, sequence.shape[2]))


def _at(sequence: Tensor, position: Tensor) -> Tensor:
    """The time step `position` (B, 1) of each row of `sequence` (B, S, W), as (B, W)."""
    return _reorder(sequence, position).squeeze(1)
