"""Sentences in, translations out: a trained model with its tokenizers and a search."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnmt.dataset.batch import pad
from rnnmt.dataset.tokenizer import BOS, EOS
from rnnmt.errors import UserError
from rnnmt.model.attention import SharedMemory
from rnnmt.model.decoder import State
from rnnmt.model.folder import TrainedModel
from rnnmt.model.likeliest import likeliest
from rnnmt.model.prepared import PackedOutput, PreparedDecoder
from rnnmt.model.seq2seq import greedy_limits
from rnnmt.search.beam import Hypothesis, Step, beam_search, score

ATTENDED = 500  # pieces of a sentence with <EOS>; of a longer one, attention takes gigabytes


class Translation(NamedTuple):
    """One hypothesis as text, with the pieces that its alignment speaks of."""

    text: str
    hypothesis: Hypothesis
    source_pieces: list[str]  # S, <EOS> last
    target_pieces: list[str]  # T, <EOS> last unless it was cut off

    @property
    def alignment(self) -> NDArray[np.float32] | None:
        """Attention weights (T, S); None where the model has no attention or S > ATTENDED."""
        weights = self.hypothesis.attention
        if weights is None or len(self.source_pieces) > ATTENDED:
            return None
        return weights[:, : len(self.source_pieces)]


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
    """The state of a beam search: each decoder's, and the memory of each hypothesis' sentence."""

    states: tuple[State, ...]
    memories: tuple[SharedMemory | None, ...]

    def select(self, rows: Tensor) -> _Search:
        return _Search(
            tuple(state.select(rows) for state in self.states),
            tuple(None if memory is None else memory.select(rows) for memory in self.memories),
        )


StepFunction = Callable[[Tensor, _Search, int], Step[_Search]]


class Translator:
    """Translates lists of sentences; each one's translation is that which it would have alone.

    With `others` it is an ensemble: the probability of a token is the mean of the models'.
    Raises UserError where they do not share the tokenizers.
    """

    def __init__(
        self,
        trained: TrainedModel,
        max_length_ratio: float = 3.0,
        others: Sequence[TrainedModel] = (),
    ) -> None:
        self.trained = trained
        self.models = [one.model for one in (trained, *others)]
        self.max_length_ratio = max_length_ratio
        for other in others:
            if not (
                other.source.same_pieces(trained.source)
                and other.target.same_pieces(trained.target)
            ):
                raise UserError(
                    "models with different tokenizers cannot translate together: their tokens "
                    "are not the same; take seeds or variants of one corpus"
                )

    @cached_property
    def _decoders(self) -> list[PreparedDecoder]:
        """The models' decoders, prepared when the first sentences are translated."""
        alone = len(self.models) == 1
        return [PreparedDecoder(model.decoder, quantized=alone) for model in self.models]

    @torch.inference_mode()
    def greedy(self, sentences: list[str]) -> list[str]:
        """The translation (N,) of each sentence (N,) by taking the likeliest word each time."""
        if not sentences:
            return []
        if len(self.models) > 1:
            return [best.text for [best] in self.beam(sentences, 1, 1, 0.0)]
        source, lengths = pad(self.trained.source.encode(sentences))
        limits = greedy_limits(lengths, self.max_length_ratio)
        [decoder] = self._decoders
        ids = self.models[0].greedy(source, lengths, limits, decoder.step, decoder.output.best)
        texts = self.trained.target.decode(ids)
        return [text if source else "" for text, source in zip(texts, sentences, strict=True)]

    @torch.inference_mode()
    def beam(
        self,
        sentences: list[str],
        beam: int,
        nbest: int,
        length_penalty: float,
        watch: Callable[[StepFunction], StepFunction] = lambda step: step,
    ) -> list[list[Translation]]:
        """The `nbest` translations of each sentence (N,), best first.

        `watch` may put a step function of its own around the model's, to look on or to steer.
        """
        if not sentences:
            return []
        encoded = self.trained.source.encode(sentences)
        source, lengths = pad(encoded)
        limits = greedy_limits(lengths, self.max_length_ratio)
        states, memories = zip(*(m.encode(source, lengths) for m in self.models), strict=True)
        found = beam_search(
            watch(self._step),
            _Search(states, tuple(None if m is None else SharedMemory.of(m) for m in memories)),
            limits.tolist(),
            bos=BOS,
            eos=EOS,
            beam=beam,
            nbest=nbest,
            length_penalty=length_penalty,
            attended=max(limits[lengths <= ATTENDED].tolist(), default=0),
        )
        return [
            [self._translation(ids, hypothesis) for hypothesis in hypotheses]
            for ids, hypotheses in zip(encoded, found, strict=True)
        ]

    def _step(self, tokens: Tensor, search: _Search, count: int) -> Step[_Search]:
        outputs = [
            decoder.step(tokens.unsqueeze(1), state, memory)
            for decoder, state, memory in zip(
                self._decoders, search.states, search.memories, strict=True
            )
        ]
        log_probs, words = self._likeliest([output.features[:, 0] for output in outputs], count)
        weights = [o.attention[:, 0] for o in outputs if o.attention is not None]
        # Of models without attention it says nothing.
        attention = sum(weights[1:], weights[0]) / len(weights) if weights else None
        states = tuple(output.state for output in outputs)
        return Step(log_probs, words, search._replace(states=states), attention)

    def _likeliest(self, features: list[Tensor], count: int) -> tuple[Tensor, Tensor]:
        """Log-probabilities and tokens (N, K) after each model's features (N, H)."""
        layers = [decoder.output for decoder in self._decoders]
        if len(layers) == 1:
            return layers[0].likeliest(features[0], count)
        # The mean of their probabilities.
        each = [
            cast(PackedOutput, layer).logits(own).log_softmax(dim=1)
            for layer, own in zip(layers, features, strict=True)
        ]
        mean = torch.stack(each).logsumexp(dim=0)
        return likeliest(mean, min(count, mean.shape[1]))

    def _translation(self, source: list[int], hypothesis: Hypothesis) -> Translation:
        ids = list(hypothesis.ids)
        return Translation(
            self.trained.target.decode([ids])[0] if source else "",  # of nothing, nothing
            hypothesis,
            [*self.trained.source.pieces(source), "<EOS>"],
            self.trained.target.pieces(ids) + ["<EOS>"] * hypothesis.ended,
        )
