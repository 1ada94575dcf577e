"""Sentences in, translations out: a trained model with its tokenizers and a search."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnmt.dataset.batch import pad
from rnnmt.dataset.tokenizer import BOS, EOS
from rnnmt.model.attention import SharedMemory
from rnnmt.model.decoder import Decoder, State
from rnnmt.model.folder import TrainedModel
from rnnmt.model.likeliest import likeliest
from rnnmt.model.prepared import prepare
from rnnmt.model.seq2seq import greedy_limits
from rnnmt.search.beam import Hypothesis, Step, beam_search, score


class Translation(NamedTuple):
    """One hypothesis as text, with the pieces that its alignment speaks of."""

    text: str
    hypothesis: Hypothesis
    source_pieces: list[str]  # S, <EOS> last
    target_pieces: list[str]  # T, <EOS> last unless it was cut off

    @property
    def alignment(self) -> NDArray[np.float32] | None:
        """Attention weights (T, S), or None where the model has no attention."""
        weights = self.hypothesis.attention
        if weights is None:
            return None
        return weights[: len(self.target_pieces), : len(self.source_pieces)]


def reranked(
    translations: list[Translation], nbest: int, length_penalty: float
) -> list[Translation]:
    """What a search with `length_penalty` would have given for the sentence, best first.

    `translations` are all that `Translator.beam` finds: as many `nbest` as its `beam`. Only when
    it stops, and its order, depend on the penalty, so that one search serves them all.
    """

    def scored(translation: Translation) -> Translation:
        found = translation.hypothesis
        length = max(1, len(found.ids) + found.ended)
        value = score(found.log_prob, length, length_penalty)
        return translation._replace(hypothesis=found._replace(score=value))

    def order(translation: Translation) -> tuple[float, int]:
        return -translation.hypothesis.score, len(translation.hypothesis.ids)

    return sorted(map(scored, translations), key=order)[:nbest]


class _Search(NamedTuple):
    """The state of a beam search: the decoder's, and the memory of each hypothesis' sentence."""

    state: State
    memory: SharedMemory | None

    def select(self, rows: Tensor) -> _Search:
        memory = None if self.memory is None else self.memory.select(rows)
        return _Search(self.state.select(rows), memory)


class Translator:
    """Translates lists of sentences; each one's translation is that which it would have alone."""

    def __init__(self, trained: TrainedModel, max_length_ratio: float = 3.0) -> None:
        self.trained = trained
        self.max_length_ratio = max_length_ratio

    @cached_property
    def _decoder(self) -> Decoder:
        """The model's decoder, prepared when the first sentences are translated."""
        return prepare(self.trained.model.decoder)

    @torch.inference_mode()
    def greedy(self, sentences: list[str]) -> list[str]:
        """The translation (N,) of each sentence (N,) by taking the likeliest word each time."""
        if not sentences:
            return []
        source, lengths = pad(self.trained.source.encode(sentences))
        limits = greedy_limits(lengths, self.max_length_ratio)
        ids = self.trained.model.greedy(source, lengths, limits, self._decoder)
        return self.trained.target.decode(ids)

    @torch.inference_mode()
    def beam(
        self, sentences: list[str], beam: int, nbest: int, length_penalty: float
    ) -> list[list[Translation]]:
        """The `nbest` translations of each sentence (N,), best first."""
        if not sentences:
            return []
        encoded = self.trained.source.encode(sentences)
        source, lengths = pad(encoded)
        limits = greedy_limits(lengths, self.max_length_ratio).tolist()
        state, memory = self.trained.model.encode(source, lengths)
        found = beam_search(
            self._step,
            _Search(state, None if memory is None else SharedMemory.of(memory)),
            limits,
            bos=BOS,
            eos=EOS,
            beam=beam,
            nbest=nbest,
            length_penalty=length_penalty,
        )
        return [
            [self._translation(ids, hypothesis) for hypothesis in hypotheses]
            for ids, hypotheses in zip(encoded, found, strict=True)
        ]

    def _step(self, tokens: Tensor, search: _Search, count: int) -> Step[_Search]:
        decoder = self._decoder
        output = decoder(tokens.unsqueeze(1), search.state, search.memory)
        logits = decoder.logits(output.features[:, 0])
        log_probs, words = likeliest(logits, min(count, logits.shape[1]))
        attention = None if output.attention is None else output.attention[:, 0]
        return Step(log_probs, words, _Search(output.state, search.memory), attention)

    def _translation(self, source: list[int], hypothesis: Hypothesis) -> Translation:
        ids = list(hypothesis.ids)
        return Translation(
            self.trained.target.decode([ids])[0],
            hypothesis,
            [*self.trained.source.pieces(source), "<EOS>"],
            self.trained.target.pieces(ids) + ["<EOS>"] * hypothesis.ended,
        )
