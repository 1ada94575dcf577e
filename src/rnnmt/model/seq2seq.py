"""Encoder and decoder together, and greedy search."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rnnmt.dataset.tokenizer import BOS, EOS, PAD
from rnnmt.model.attention import Memory, SharedMemory
from rnnmt.model.decoder import Decoder, Output, State
from rnnmt.model.encoder import Encoder
from rnnmt.model.settings import ModelSettings

# One token (B, 1) of each sentence, as Decoder takes many.
Step = Callable[[Tensor, State, Memory | SharedMemory | None], Output]

ATTENDED_AT_ONCE = 1 << 19  # weights B x T x S; additive attention takes their H-fold


class Vocabularies(NamedTuple):
    """Numbers of pieces; `joint` when both languages share one vocabulary."""

    source: int
    target: int
    joint: bool


class Seq2Seq(nn.Module):
    """Sequence to sequence (Sutskever et al. 2014), with or without attention."""

    def __init__(self, settings: ModelSettings, vocabularies: Vocabularies) -> None:
        super().__init__()
        target = _embedding(vocabularies.target, settings.embedding)
        shared = settings.tie_embeddings and vocabularies.joint
        source = target if shared else _embedding(vocabularies.source, settings.embedding)
        self.encoder = Encoder(settings, source)
        self.decoder = Decoder(settings, target, vocabularies.target)

    def encode(self, source: Tensor, lengths: Tensor) -> tuple[State, Memory | None]:
        """`source` (B, S) ids with <EOS>, `lengths` (B,) -> first state and memory."""
        encoding = self.encoder(source, lengths)
        mask = torch.arange(source.shape[1]) < lengths.unsqueeze(1)
        return self.decoder.start(encoding), self.decoder.memory(encoding, mask)

    def forward(self, source: Tensor, lengths: Tensor, decoder_input: Tensor) -> Output:
        """Teacher forcing: features (B, T, E) of the token after each of `decoder_input` (B, T)."""
        state, memory = self.encode(source, lengths)
        output: Output = self.decoder(decoder_input, state, memory)
        return output

    @torch.no_grad()
    def features(self, source: Tensor, lengths: Tensor, decoder_input: Tensor) -> Tensor:
        """The features (B, T, E) of `forward` without what gradients need.

        Very long sentences are gone through in parts, since attention takes B x T x S.
        """
        state, memory = self.encode(source, lengths)
        parts = []
        steps = max(1, ATTENDED_AT_ONCE // source.numel())
        for tokens in torch.split(decoder_input, steps, dim=1):
            part = self.decoder(tokens, state, memory)
            state = part.state
            parts.append(part.features)
        return torch.cat(parts, dim=1)

    @torch.inference_mode()
    def greedy(
        self,
        source: Tensor,
        lengths: Tensor,
        limits: Tensor,
        step: Step | None = None,
        best: Callable[[Tensor], Tensor] | None = None,
    ) -> list[list[int]]:
        """The likeliest next token, again and again, until <EOS> or `limits` (B,) tokens.

        `step` and `best`, from features (B, E) to tokens (B,), may be faster ones of this model.
        Returns each translation's ids without <BOS> and <EOS>. Finished rows leave the batch.
        """
        step, best = step or self.decoder, best or self._best
        state, own = self.encode(source, lengths)
        memory = None if own is None else SharedMemory.of(own)
        hypotheses: list[list[int]] = [[] for _ in range(len(source))]
        rows, tokens = torch.arange(len(source)), torch.full((len(source),), BOS)
        time = 0
        while len(rows):
            time += 1
            output = step(tokens.unsqueeze(1), state, memory)
            state = output.state
            tokens = best(output.features[:, 0])
            for row, token in zip(rows.tolist(), tokens.tolist(), strict=True):
                if token != EOS:
                    hypotheses[row].append(token)
            done = (tokens == EOS) | (limits[rows] <= time)
            if done.any():
                keep = (~done).nonzero().squeeze(1)
                rows, tokens, state = rows[keep], tokens[keep], state.select(keep)
                memory = None if memory is None else memory.select(keep)
        return hypotheses

    def _best(self, features: Tensor) -> Tensor:
        logits: Tensor = self.decoder.output(features)
        return logits.argmax(dim=1)


def greedy_limits(source_lengths: Tensor, ratio: float) -> Tensor:
    """How many tokens a translation may have: `ratio` times the source's, and ten."""
    return (source_lengths * ratio).long() + 10


def _embedding(vocabulary: int, width: int) -> nn.Embedding:
    embedding = nn.Embedding(vocabulary, width, padding_idx=PAD)
    # Small enough for a tied output layer, of order 1 once multiplied with unit features.
    nn.init.normal_(embedding.weight, std=width**-0.5)
    with torch.no_grad():
        embedding.weight[PAD].zero_()
    return embedding
