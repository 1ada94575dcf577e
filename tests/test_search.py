"""Beam search against exact enumeration and plain references, and with real models.

The pure part searches tables: what may follow a prefix is a random function of the prefix.
"""

from __future__ import annotations

import heapq
import json
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rnnmt.dataset.batch import pad
from rnnmt.dataset.tokenizer import BOS, EOS, Tokenizer, TokenizerSettings, train
from rnnmt.errors import UserError
from rnnmt.model.folder import TrainedModel
from rnnmt.model.prepared import PreparedDecoder, QuantizedOutput
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies, greedy_limits
from rnnmt.model.settings import ModelSettings
from rnnmt.search import answers, sets
from rnnmt.search import translator as module
from rnnmt.search.answers import Search
from rnnmt.search.beam import Hypothesis, Step, beam_search, score
from rnnmt.search.settings import DecodeSettings
from rnnmt.search.translator import Translation, Translator, reranked

torch.set_num_threads(1)

FUZZ = settings(max_examples=80, deadline=None, derandomize=True)
Prefix = tuple[int, ...]
START, END = 0, 1  # of the tables; END is one of the tokens that may follow, and so is START
WIDTH = 3  # of the tables' attention


class Prefixes(tuple[tuple[int, Prefix], ...]):
    """The state of a search in tables: sentence and prefix of each live hypothesis."""

    def select(self, rows: Tensor) -> Prefixes:
        return Prefixes(self[row] for row in rows.tolist())


def best_first(log_probs: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` likeliest of each row (N, V) with their tokens; of equals the first."""
    ordered, tokens = log_probs.sort(dim=1, descending=True, stable=True)
    return ordered[:, :count], tokens[:, :count]


class Tables:
    """Log-probabilities (V,) of the next token, for every sentence and every prefix.

    random      no two are alike
    ties        multiples of 1/4, so that sums are exact and many are equal
    impossible  as `random`, a third of them minus infinity
    endless     as `random`, but nothing ever ends
    brief       nothing is possible but the end
    flat        all are equal
    """

    KINDS = ("random", "ties", "impossible", "endless", "brief", "flat")

    def __init__(self, kind: str, size: int, seed: int) -> None:
        self.kind, self.size, self.seed = kind, size, seed
        self.seen: dict[tuple[int, Prefix], Tensor] = {}

    def log_probs(self, sentence: int, prefix: Prefix) -> Tensor:
        key = sentence, prefix
        if key not in self.seen:
            self.seen[key] = self._make(np.random.default_rng([self.seed, sentence, *prefix]))
        return self.seen[key]

    def _make(self, random: np.random.Generator) -> Tensor:
        if self.kind == "ties":
            return torch.from_numpy(-random.integers(0, 5, self.size) / 4.0).float()
        logits = torch.from_numpy(random.normal(size=self.size) * 2.0).float()
        if self.kind == "impossible":
            logits[torch.from_numpy(random.random(self.size) < 1 / 3)] = -math.inf
            if torch.isneginf(logits).all():
                return logits
        if self.kind == "endless":
            logits[END] = -math.inf
        if self.kind == "brief":
            logits[torch.arange(self.size) != END] = -math.inf
        if self.kind == "flat":
            logits.zero_()
        return logits.log_softmax(dim=0)

    def attention(self, sentence: int, prefix: Prefix) -> list[float]:
        """Of the step after `prefix`; no other prefix has the same."""
        weights = np.random.default_rng([7, sentence, *prefix]).random(WIDTH)
        return [float(w) for w in (weights / weights.sum()).astype(np.float32)]

    def step(self, tokens: Tensor, state: Prefixes, count: int) -> Step[Prefixes]:
        pairs = zip(state, tokens.tolist(), strict=True)
        after = Prefixes((sentence, (*prefix, token)) for (sentence, prefix), token in pairs)
        attention = torch.tensor([self.attention(*key) for key in after])
        log_probs = torch.stack([self.log_probs(*key) for key in after])
        return Step(*best_first(log_probs, count), after, attention)

    def search(self, sentences: Sequence[int], limits: Sequence[int], **options: Any) -> Any:
        options = {"nbest": 1, "length_penalty": 0.0, **options}
        start = Prefixes((sentence, ()) for sentence in sentences)
        return beam_search(self.step, start, list(limits), bos=START, eos=END, **options)

    def step_sum(self, sentence: int, ids: Prefix, limit: int) -> float:
        """The log-probability of all tokens, with <EOS> unless the limit leaves no room for it."""
        tokens = [*ids, END][:limit]
        steps = [
            float(self.log_probs(sentence, (START, *ids[:t]))[token])
            for t, token in enumerate(tokens)
        ]
        return math.fsum(steps)


class Found(NamedTuple):
    score: float
    log_prob: float
    ids: Prefix


def ranked(
    ended: list[tuple[float, Prefix]], cut: list[tuple[float, Prefix]], limit: int, penalty: float
) -> list[Found]:
    found = [Found(x / (len(ids) + 1) ** penalty, x, ids) for x, ids in ended]
    if not ended:
        found = [Found(x / limit**penalty, x, ids) for x, ids in cut]
    return sorted(found, key=lambda f: -f.score)


def enumerate_all(tables: Tables, sentence: int, limit: int, penalty: float) -> list[Found]:
    """Every possible translation, best first; those cut off only if none ends."""
    ended: list[tuple[float, Prefix]] = []
    cut: list[tuple[float, Prefix]] = []

    def visit(prefix: Prefix, log_prob: float) -> None:
        for token, x in enumerate(tables.log_probs(sentence, (START, *prefix)).tolist()):
            if x == -math.inf:
                continue
            if token == END:
                ended.append((log_prob + x, prefix))
            elif len(prefix) + 1 == limit:
                cut.append((log_prob + x, (*prefix, token)))
            else:
                visit((*prefix, token), log_prob + x)

    visit((), 0.0)
    return ranked(ended, cut, limit, penalty)


def plain_beam(tables: Tables, sentence: int, limit: int, beam: int, penalty: float) -> list[Found]:
    """Beam search in loops, of one sentence, that never stops early."""
    live: list[tuple[float, Prefix]] = [(0.0, ())]
    ended: list[tuple[float, Prefix]] = []
    for _ in range(limit):
        extensions = [
            (total + x, prefix, token)
            for total, prefix in live
            for token, x in enumerate(tables.log_probs(sentence, (START, *prefix)).tolist())
            if x > -math.inf
        ]
        best = heapq.nlargest(beam - len(ended), extensions, key=lambda e: e[0])
        ended += [(x, prefix) for x, prefix, token in best if token == END]
        live = [(x, (*prefix, token)) for x, prefix, token in best if token != END]
    return ranked(ended, live, limit, penalty)


PENALTIES = st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.6, 1.0, 2.0, 3.5])
SEEDS = st.integers(0, 2**20)
KINDS = st.sampled_from(Tables.KINDS)
LIMITS = st.lists(st.integers(1, 4), min_size=1, max_size=4)


# --- as a pure function -------------------------------------------------------------------------


@FUZZ
@given(KINDS, st.integers(2, 4), SEEDS, LIMITS, st.integers(1, 9), PENALTIES)
def test_a_beam_that_holds_everything_finds_the_exact_n_best(
    kind: str, size: int, seed: int, limits: list[int], nbest: int, penalty: float
) -> None:
    tables = Tables(kind, size, seed)
    beam = size ** max(limits)
    found = tables.search(
        range(len(limits)), limits, beam=beam, nbest=nbest, length_penalty=penalty
    )
    for sentence, (limit, hypotheses) in enumerate(zip(limits, found, strict=True)):
        everything = enumerate_all(tables, sentence, limit, penalty)
        if not everything:
            assert all(h.log_prob == h.score == -math.inf for h in hypotheses)
            continue
        expected = everything[:nbest]
        assert [h.score for h in hypotheses] == pytest.approx(
            [e.score for e in expected], rel=1e-5, abs=1e-6
        )
        # Of equals any may be found, but each one once and with its own score.
        known = {e.ids: e for e in everything}
        assert len({h.ids for h in hypotheses}) == len(hypotheses)
        for h in hypotheses:
            assert h.score == pytest.approx(known[h.ids].score, rel=1e-5, abs=1e-6)
        if kind == "random":
            assert [h.ids for h in hypotheses] == [e.ids for e in expected]


@FUZZ
@given(
    KINDS,
    st.integers(2, 9),
    SEEDS,
    LIMITS,
    st.integers(1, 6),
    st.integers(1, 8),
    PENALTIES,
)
def test_stopping_early_changes_nothing(
    kind: str, size: int, seed: int, limits: list[int], beam: int, nbest: int, penalty: float
) -> None:
    """Against a beam search that always goes on to the end; beams wider than the vocabulary too.

    Of equals both keep the extensions of the better hypothesis, and of those the first token.
    """
    tables = Tables(kind, size, seed)
    limits = [2 * limit for limit in limits]
    found = tables.search(
        range(len(limits)), limits, beam=beam, nbest=nbest, length_penalty=penalty
    )
    for sentence, (limit, hypotheses) in enumerate(zip(limits, found, strict=True)):
        expected = plain_beam(tables, sentence, limit, beam, penalty)[:nbest]
        if not expected:
            assert all(h.log_prob == h.score == -math.inf for h in hypotheses)
            continue
        assert [h.ids for h in hypotheses] == [e.ids for e in expected]
        for h, e in zip(hypotheses, expected, strict=True):
            assert h.log_prob == pytest.approx(e.log_prob, rel=1e-5, abs=1e-6)
            assert h.score == pytest.approx(e.score, rel=1e-5, abs=1e-6)


@FUZZ
@given(KINDS, st.integers(2, 9), SEEDS, LIMITS, st.integers(1, 6), st.data(), PENALTIES)
def test_one_search_serves_every_length_penalty(
    kind: str,
    size: int,
    seed: int,
    limits: list[int],
    beam: int,
    data: st.DataObject,
    penalty: float,
) -> None:
    nbest = data.draw(st.integers(1, beam))
    tables, rows = Tables(kind, size, seed), range(len(limits))
    whole = tables.search(rows, limits, beam=beam, nbest=beam, length_penalty=0.0)
    alone = tables.search(rows, limits, beam=beam, nbest=nbest, length_penalty=penalty)
    for everything, expected in zip(whole, alone, strict=True):
        translations = [Translation("", hypothesis, [], []) for hypothesis in everything]
        found = [t.hypothesis for t in reranked(translations, nbest, penalty)]
        assert [h._replace(attention=None) for h in found] == [
            h._replace(attention=None) for h in expected
        ]


@FUZZ
@given(KINDS, st.integers(2, 9), SEEDS, LIMITS, st.integers(1, 6), PENALTIES)
def test_a_hypothesis_adds_up(
    kind: str, size: int, seed: int, limits: list[int], beam: int, penalty: float
) -> None:
    """log_prob, score and attention are those of its own tokens; the list is in order."""
    tables = Tables(kind, size, seed)
    found = tables.search(range(len(limits)), limits, beam=beam, nbest=beam, length_penalty=penalty)
    assert len(found) == len(limits)
    for sentence, (limit, hypotheses) in enumerate(zip(limits, found, strict=True)):
        assert 1 <= len(hypotheses) <= beam
        scores = [h.score for h in hypotheses]
        assert scores == sorted(scores, reverse=True)
        assert len({h.ids for h in hypotheses}) == len(hypotheses)
        for h in hypotheses:
            assert END not in h.ids
            assert len(h.ids) <= limit
            if h.log_prob == -math.inf:
                continue
            steps = min(len(h.ids) + 1, limit)
            total = tables.step_sum(sentence, h.ids, limit)
            assert h.log_prob == pytest.approx(total, rel=1e-5, abs=1e-6)
            assert h.score == pytest.approx(h.log_prob / steps**penalty, rel=1e-9)
            assert h.attention is not None
            assert h.attention.tolist() == [
                tables.attention(sentence, (START, *h.ids[:t])) for t in range(steps)
            ]


@FUZZ
@given(KINDS, st.integers(2, 40), SEEDS, LIMITS, PENALTIES)
def test_beam_one_is_greedy(
    kind: str, size: int, seed: int, limits: list[int], penalty: float
) -> None:
    """Every token is a likeliest one, of equals any."""
    tables = Tables(kind, size, seed)
    limits = [2 * limit for limit in limits]
    found = tables.search(range(len(limits)), limits, beam=1, length_penalty=penalty)
    for sentence, (limit, [hypothesis]) in enumerate(zip(limits, found, strict=True)):
        ids = hypothesis.ids
        for t, token in enumerate([*ids, END][:limit]):
            log_probs = tables.log_probs(sentence, (START, *ids[:t]))
            if t == len(ids) and log_probs.max() == -math.inf:
                assert hypothesis.log_prob == -math.inf
            else:
                assert log_probs[token] == log_probs.max()


@FUZZ
@given(KINDS, st.integers(2, 9), SEEDS, LIMITS, st.integers(1, 6), PENALTIES)
def test_a_wider_nbest_list_begins_with_the_narrower_one(
    kind: str, size: int, seed: int, limits: list[int], beam: int, penalty: float
) -> None:
    tables = Tables(kind, size, seed)
    limits = [2 * limit for limit in limits]

    def found(nbest: int) -> list[list[tuple[Prefix, float, float]]]:
        lists = tables.search(
            range(len(limits)), limits, beam=beam, nbest=nbest, length_penalty=penalty
        )
        return [[(h.ids, h.log_prob, h.score) for h in hypotheses] for hypotheses in lists]

    narrower = found(1)
    for nbest in range(2, beam + 3):
        wider = found(nbest)
        for few, more in zip(narrower, wider, strict=True):
            assert more[: len(few)] == few
            assert len(more) <= min(nbest, beam)
        narrower = wider


@FUZZ
@given(
    st.sampled_from(["random", "impossible", "endless", "brief"]),
    st.integers(2, 30), SEEDS, st.integers(1, 12), st.integers(1, 3), PENALTIES,
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 6)), min_size=1, max_size=5),
)  # fmt: skip
def test_the_batch_never_changes_a_hypothesis(
    kind: str,
    size: int,
    seed: int,
    beam: int,
    nbest: int,
    penalty: float,
    batch: list[tuple[int, int]],
) -> None:
    tables = Tables(kind, size, seed)
    options = {"beam": beam, "nbest": nbest, "length_penalty": penalty}
    together = tables.search([s for s, _ in batch], [limit for _, limit in batch], **options)
    for (sentence, limit), hypotheses in zip(batch, together, strict=True):
        [alone] = tables.search([sentence], [limit], **options)
        assert [h[:3] for h in hypotheses] == [h[:3] for h in alone]
        for one, other in zip(hypotheses, alone, strict=True):
            np.testing.assert_array_equal(one.attention, other.attention)


@pytest.mark.parametrize("kind", ["ties", "flat"])
def test_the_batch_never_changes_a_hypothesis_not_even_among_equals(kind: str) -> None:
    """Which of two equals is kept must not depend on the size of what is sorted."""
    for seed in range(30):
        tables, random = Tables(kind, 5 + seed % 20, seed), np.random.default_rng(seed)
        sentences, limits = random.integers(10, size=4), random.integers(1, 7, size=4)
        options = {"beam": 3 + 3 * (seed % 6), "nbest": 3}
        together = tables.search(sentences, limits.tolist(), **options)
        for sentence, limit, hypotheses in zip(sentences, limits, together, strict=True):
            [alone] = tables.search([sentence], [int(limit)], **options)
            assert [h[:3] for h in hypotheses] == [h[:3] for h in alone]


class Hopeless(Tables):
    """Sentence 0 can make two tokens and nothing more; sentence 1 cannot even begin."""

    def log_probs(self, sentence: int, prefix: Prefix) -> Tensor:
        log_probs = super().log_probs(sentence, prefix)
        if sentence == 1 or (sentence == 0 and len(prefix) == 3):
            return torch.full_like(log_probs, -math.inf)
        if sentence == 0:
            return torch.where(torch.arange(self.size) == END, -math.inf, log_probs)
        return log_probs


@pytest.mark.parametrize("penalty", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("beam", [1, 2, 7])
def test_a_sentence_for_which_nothing_is_possible_disturbs_no_other(
    beam: int, penalty: float
) -> None:
    tables, usual = Hopeless("random", 5, 3), Tables("random", 5, 3)
    options = {"beam": beam, "nbest": beam, "length_penalty": penalty}
    sentences, limits = [2, 1, 3, 0, 1, 4], [6, 5, 4, 6, 1, 6]
    found = tables.search(sentences, limits, **options)
    for sentence, limit, hypotheses in zip(sentences, limits, found, strict=True):
        if sentence == 1:
            assert hypotheses == [Hypothesis((), -math.inf, -math.inf, None, ended=False)]
        elif sentence == 0:
            assert all(h.log_prob == h.score == -math.inf for h in hypotheses)
        else:
            [alone] = usual.search([sentence], [limit], **options)
            assert [h[:3] for h in hypotheses] == [h[:3] for h in alone]
    assert (
        tables.search([1, 1], [3, 3], **options)
        == [[Hypothesis((), -math.inf, -math.inf, None, ended=False)]] * 2
    )


def test_no_sentences_give_no_translations() -> None:
    assert Tables("random", 3, 0).search([], [], beam=2) == []


def test_without_attention_a_hypothesis_has_none() -> None:
    tables = Tables("random", 3, 0)

    def step(tokens: Tensor, state: Prefixes, count: int) -> Step[Prefixes]:
        return tables.step(tokens, state, count)._replace(attention=None)

    found = beam_search(
        step, Prefixes([(0, ()), (1, ())]), [4, 4], bos=START, eos=END, beam=3, nbest=3
    )
    assert [h.attention for hypotheses in found for h in hypotheses] == [None] * sum(
        map(len, found)
    )


def test_it_stops_when_no_live_hypothesis_can_win() -> None:
    """An end that is all but certain; and never more than `beam` rows for a sentence."""
    tables = Tables("random", 6, 1)
    rows: list[int] = []

    def sure(tokens: Tensor, state: Prefixes, count: int) -> Step[Prefixes]:
        rows.append(len(tokens))
        log_probs = torch.full((len(tokens), 6), -20.0)
        log_probs[:, END] = -0.001
        _, _, after, attention = tables.step(tokens, state, count)
        return Step(*best_first(log_probs, count), after, attention)

    def steps(**options: Any) -> list[int]:
        rows.clear()
        start = Prefixes([(0, ()), (1, ())])
        beam_search(sure, start, [50, 50], bos=START, eos=END, beam=4, **options)
        return list(rows)

    assert steps() == [2]
    assert steps(nbest=4) == [2, 6]  # one ended first, so that three are left for each sentence
    assert steps(length_penalty=1.0) == [2]  # -20 / 50 is still worse than -0.001


def search_steps(steps: dict[Prefix, dict[int, float]], limit: int, **options: Any) -> list[Prefix]:
    """The n best of one sentence with three tokens; what `steps` does not name has -9."""

    def step(tokens: Tensor, state: Prefixes, count: int) -> Step[Prefixes]:
        pairs = zip(state, tokens.tolist(), strict=True)
        after = Prefixes((b, (*prefix, token)) for (b, prefix), token in pairs)
        log_probs = torch.full((len(after), 3), -9.0)
        for row, (_, prefix) in enumerate(after):
            for token, x in steps.get(prefix[1:], {}).items():
                log_probs[row, token] = x
        return Step(*best_first(log_probs, count), after, None)

    [found] = beam_search(step, Prefixes([(0, ())]), [limit], bos=START, eos=END, **options)
    return [hypothesis.ids for hypothesis in found]


def test_it_goes_on_where_a_longer_hypothesis_can_still_win() -> None:
    """With a length penalty the first to end need not be the best: -0.5 / 1 < -1.4 / 4.

    Nor need it be in sight after the next step: -1.2 / 2 < -0.5.
    """
    steps = {
        (): {END: -0.5, 2: -1.2},
        (2,): {2: -0.1},
        (2, 2): {2: -0.05},
        (2, 2, 2): {END: -0.05},
    }
    assert search_steps(steps, 5, beam=2, length_penalty=0.0) == [()]
    assert search_steps(steps, 5, beam=2, length_penalty=1.0) == [(2, 2, 2)]


def test_a_hopeless_hypothesis_still_keeps_worse_ones_out() -> None:
    """(0,) cannot win any more; without it (2,) would end beside (2, 2), and narrow the beam."""
    steps = {
        (): {END: -2.0, 2: -0.1, 0: -2.5},
        (0,): {2: -0.1},
        (2,): {2: -0.1, END: -3.0},
        (2, 2): {0: -0.3, 2: -0.4},
        (2, 2, 2): {END: -0.1},
    }
    assert search_steps(steps, 6, beam=3) == [(2, 2, 2)]


@pytest.mark.parametrize("better", [False, True])
def test_it_goes_on_for_a_win_in_the_last_digits(better: bool) -> None:
    """-1 / 2 against -0.5; `better` by a part in two million, as float32 can hold."""
    second = -1.0 + (5e-7 if better else -5e-7)
    steps = {(): {END: -0.5, 2: second}, (2,): {END: 0.0}}
    assert search_steps(steps, 2, beam=2, length_penalty=1.0) == [(2,) if better else ()]


def test_it_stops_where_the_next_step_would_cost_too_much() -> None:
    """With a penalty below 0 every step costs: -1.1 * 1 would win, its next step cannot."""
    asked: list[int] = []

    class Counted(dict[Prefix, dict[int, float]]):
        def get(self, key: Prefix, default: Any = None) -> Any:
            asked.append(len(key))
            return super().get(key, default)

    steps = Counted({(): {END: -1.5, 2: -1.1}})
    assert search_steps(steps, 9, beam=2, length_penalty=-1.0) == [()]
    assert asked == [0]


@pytest.mark.parametrize("penalty", [-1.5, 0.0, 0.7, 2.0])
def test_score_is_log_prob_over_a_power_of_the_length(penalty: float) -> None:
    for length in (1, 2, 17):
        assert score(-3.0, length, penalty) == pytest.approx(-3.0 / math.pow(length, penalty))


# --- with a real model ----------------------------------------------------------------------------

CELLS = ("rnn", "gru", "lstm")
ATTENTIONS = ("none", "dot", "general", "additive")
TEXT = [
    "the black cat eats", "a small house", "Anna drinks milk today", "milk", "",
    "the small cat drinks the milk of a black house", "cats eat", "a a a a a",
]  # fmt: skip
RATIO = 0.5  # limits short enough that some translations are cut off
close = torch.testing.assert_close


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    options = TokenizerSettings(algorithm="bpe", joint=True, vocabulary=45, byte_fallback=False)
    return Tokenizer(train(TEXT, options, "joint"))


def translator(tokenizer: Tokenizer, cell: str, attention: str, seed: int = 0) -> Translator:
    """With a random model that is sure enough of its tokens, and that may end."""
    torch.manual_seed(seed)
    model = Seq2Seq(
        ModelSettings(
            cell=cell, attention=attention, heads=1, embedding=6, hidden=8, encoder_layers=1,
            decoder_layers=2, layer_norm=False, dropout=0.3, word_dropout=0.0, tie_embeddings=False,
        ),
        Vocabularies(tokenizer.vocabulary_size, tokenizer.vocabulary_size, True),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.7)
        model.decoder.output.bias[EOS] += 4.0
    return Translator(TrainedModel(model, tokenizer, tokenizer, {}), RATIO)


def limit_of(tokenizer: Tokenizer, sentence: str) -> int:
    _, lengths = pad(tokenizer.encode([sentence]))
    return int(greedy_limits(lengths, RATIO)[0])


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_beam_one_of_a_model_is_its_greedy_search(
    tokenizer: Tokenizer, cell: str, attention: str
) -> None:
    for seed in range(3):
        search = translator(tokenizer, cell, attention, seed)
        source, lengths = pad(tokenizer.encode(TEXT))
        greedy = search.trained.model.greedy(source, lengths, greedy_limits(lengths, RATIO))
        for penalty in (0.0, 1.0):
            found = search.beam(TEXT, 1, 1, penalty)
            assert [list(t.hypothesis.ids) for [t] in found] == greedy
            assert [t.text for [t] in found] == search.greedy(TEXT)


def test_beam_one_is_greedy_among_equals(tokenizer: Tokenizer) -> None:
    """A model that cannot decide between pieces decides as greedy search does."""
    for seed in range(5):
        search = translator(tokenizer, "gru", "general", seed)
        output = search.trained.model.decoder.output
        with torch.no_grad():
            # Pieces 4 to 13 are as likely as 14 to 23, 24 to 33 and 34 to 43.
            for start in (14, 24, 34):
                output.weight[start : start + 10] = output.weight[4:14]
                output.bias[start : start + 10] = output.bias[4:14]
        found = [translations[0].text for translations in search.beam(TEXT, 1, 1, 0.0)]
        assert found == search.greedy(TEXT)


def test_beam_one_is_greedy_where_only_the_logits_differ(tokenizer: Tokenizer) -> None:
    """Two logits may differ by less than their log-probabilities, being larger, can tell."""
    search = translator(tokenizer, "gru", "general")
    output = search.trained.model.decoder.output

    def log_probs_are_equal(top: float) -> bool:
        with torch.no_grad():
            output.weight.zero_()
            output.bias.fill_(0.5)
            output.bias[20] = top
            output.bias[30] = torch.nextafter(output.bias[20], torch.tensor(2.0))
        log_probs = output.bias.log_softmax(dim=0)
        return bool(output.bias[20] < output.bias[30] and log_probs[20] == log_probs[30])

    assert any(log_probs_are_equal(0.6 + step / 100) for step in range(50))
    found = [translations[0].text for translations in search.beam(TEXT, 1, 1, 0.0)]
    assert found == search.greedy(TEXT)


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_rescoring_a_hypothesis_gives_its_log_prob_and_attention(
    tokenizer: Tokenizer, cell: str, attention: str
) -> None:
    search, cut_off = translator(tokenizer, cell, attention, 1), []
    model = search.trained.model
    for sentence, translations in zip(TEXT, search.beam(TEXT, 4, 4, 0.8), strict=True):
        source, lengths = pad(tokenizer.encode([sentence]))
        limit = limit_of(tokenizer, sentence)
        for translation in translations:
            ids, log_prob, value, _, ended = translation.hypothesis
            labels = [*ids, EOS][:limit]
            assert ended == (len(ids) < limit)
            cut_off.append(not ended)
            with torch.inference_mode():
                output = model(source, lengths, torch.tensor([[BOS, *ids][: len(labels)]]))
                log_probs = model.decoder.logits(output.features[0]).log_softmax(dim=1)
            steps = log_probs[torch.arange(len(labels)), torch.tensor(labels)]
            assert log_prob == pytest.approx(float(steps.sum()), abs=1e-4)
            assert value == pytest.approx(log_prob / len(labels) ** 0.8, rel=1e-6)
            weights = translation.alignment
            if attention == "none":
                assert weights is None
                continue
            assert weights is not None
            assert weights.shape == (len(labels), int(lengths[0]))
            np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-5)
            close(torch.from_numpy(weights), output.attention[0], atol=1e-5, rtol=1e-4)
    assert not all(cut_off), "a weak test: no translation ends"


@pytest.mark.parametrize("attention", ["none", "general"])
@pytest.mark.parametrize("cell", CELLS)
def test_neither_batch_nor_nbest_changes_a_translation(
    tokenizer: Tokenizer, cell: str, attention: str
) -> None:
    search = translator(tokenizer, cell, attention)
    together = search.beam(TEXT, 4, 3, 0.6)
    backwards = search.beam(TEXT[::-1], 4, 3, 0.6)[::-1]
    best = search.beam(TEXT, 4, 1, 0.6)
    greedy = search.greedy(TEXT)

    def same(ones: list[Translation], others: list[Translation]) -> None:
        for one, other in zip(ones, others, strict=True):
            assert one.hypothesis.ids == other.hypothesis.ids
            assert one.text == other.text
            assert one.hypothesis.log_prob == pytest.approx(other.hypothesis.log_prob, abs=1e-4)
            if one.alignment is not None:
                np.testing.assert_allclose(one.alignment, other.alignment, atol=1e-5)

    for row, sentence in enumerate(TEXT):
        [alone] = search.beam([sentence], 4, 3, 0.6)
        same(together[row], alone)
        same(together[row], backwards[row])
        same(together[row][:1], best[row])
        assert search.greedy([sentence]) == [greedy[row]]


@pytest.mark.parametrize("cell", CELLS)
def test_one_search_of_a_model_serves_every_length_penalty(tokenizer: Tokenizer, cell: str) -> None:
    chosen = set()
    for seed in range(3):
        search = translator(tokenizer, cell, "general", seed)
        whole = search.beam(TEXT, 5, 5, 0.0)
        for penalty in (-1.0, 0.0, 0.6, 1.0, 3.0):
            alone = search.beam(TEXT, 5, 2, penalty)
            best = [reranked(translations, 2, penalty) for translations in whole]
            assert [[t.text for t in ts] for ts in best] == [[t.text for t in ts] for ts in alone]
            assert [[t.hypothesis.score for t in ts] for ts in best] == [
                pytest.approx([t.hypothesis.score for t in ts]) for ts in alone
            ]
            chosen.add(tuple(t[0].text for t in alone))
    assert len(chosen) > 3  # that is, the penalties differ


@pytest.mark.parametrize("attention", ["none", "additive"])
@pytest.mark.parametrize("cell", CELLS)
def test_an_ensemble_of_equals_is_the_model(
    tokenizer: Tokenizer, cell: str, attention: str
) -> None:
    single = translator(tokenizer, cell, attention)
    triple = Translator(single.trained, RATIO, [single.trained] * 2)
    assert triple.greedy(TEXT) == single.greedy(TEXT)
    found, expected = (search.beam(TEXT, 4, 3, 0.6) for search in (triple, single))
    for ones, others in zip(found, expected, strict=True):
        assert [t.hypothesis.ids for t in ones] == [t.hypothesis.ids for t in others]
        for one, other in zip(ones, others, strict=True):
            assert one.hypothesis.log_prob == pytest.approx(other.hypothesis.log_prob, abs=1e-4)
            if one.alignment is not None:
                np.testing.assert_allclose(one.alignment, other.alignment, atol=1e-5)


def test_an_ensemble_may_keep_more_hypotheses_than_there_are_words(tokenizer: Tokenizer) -> None:
    """And one sentence alone begins with as many of them as a batch does."""
    single = translator(tokenizer, "gru", "general")
    both = Translator(single.trained, RATIO, [single.trained])
    for beam in (3, tokenizer.vocabulary_size + 5):
        [found], [expected] = (search.beam(TEXT[:1], beam, 3, 0.0) for search in (both, single))
        log_probs = [t.hypothesis.log_prob for t in expected]
        assert [t.hypothesis.log_prob for t in found] == pytest.approx(log_probs, abs=1e-3)


def test_an_ensemble_takes_the_mean_of_the_probabilities(tokenizer: Tokenizer) -> None:
    """By teacher forcing of each model, and whichever of them comes first."""
    members = [translator(tokenizer, cell, "general", seed) for seed, cell in enumerate(CELLS)]
    models = [member.trained for member in members]
    found = Translator(models[0], RATIO, models[1:]).beam(TEXT, 4, 2, 0.0)
    other = Translator(models[2], RATIO, models[:2]).beam(TEXT, 4, 2, 0.0)
    assert [[t.text for t in ts] for ts in found] == [[t.text for t in ts] for ts in other]
    assert [t.text for t, *_ in found] != [t.text for t, *_ in members[0].beam(TEXT, 4, 2, 0.0)]
    for sentence, translations in zip(TEXT, found, strict=True):
        source, lengths = pad(tokenizer.encode([sentence]))
        for hypothesis in (t.hypothesis for t in translations):
            labels = torch.tensor([*hypothesis.ids, EOS][: len(hypothesis.ids) + hypothesis.ended])
            inputs = torch.tensor([[BOS, *labels.tolist()[:-1]]])
            with torch.no_grad():
                log_probs = [
                    m.model.decoder.logits(m.model(source, lengths, inputs).features).log_softmax(2)
                    for m in models
                ]
            mean = torch.stack(log_probs).exp().mean(dim=0)[0].log()
            total = float(mean[torch.arange(len(labels)), labels].sum())
            assert hypothesis.log_prob == pytest.approx(total, abs=1e-3)


def test_two_models_translate_greedily_together(tokenizer: Tokenizer) -> None:
    one, other = (translator(tokenizer, "gru", "general", seed) for seed in (2, 3))
    both = Translator(one.trained, RATIO, [other.trained])
    greedy = both.greedy(TEXT)
    assert greedy == [best.text for [best] in both.beam(TEXT, 1, 1, 0.0)]
    alone = (one.greedy(TEXT), other.greedy(TEXT), [t.text for [t] in both.beam(TEXT, 2, 1, 0.0)])
    assert greedy not in alone, "a weak test"


def test_models_of_other_tokenizers_are_refused(tokenizer: Tokenizer) -> None:
    options = TokenizerSettings(algorithm="bpe", joint=True, vocabulary=40, byte_fallback=False)
    other = Tokenizer(train(TEXT, options, "joint"))
    one, strange = (translator(t, "gru", "dot").trained for t in (tokenizer, other))
    with pytest.raises(UserError, match="different tokenizers"):
        Translator(one, RATIO, [strange])
    for side in ("source", "target"):  # one of the two is enough
        with pytest.raises(UserError, match="different tokenizers"):
            Translator(one, RATIO, [one._replace(**{side: other})])


def test_long_sentences_have_no_alignment() -> None:
    weights = np.ones((1, 600), dtype=np.float32)
    hypothesis = Hypothesis((4,), 0.0, 0.0, weights)
    known, unknown = (Translation("", hypothesis, ["a"] * n, ["b"]) for n in (500, 501))
    assert known.alignment is not None
    assert known.alignment.shape == (1, 500)
    assert unknown.alignment is None


@pytest.mark.parametrize("attention", ["none", "dot"])
def test_pieces_name_the_rows_and_columns_of_the_alignment(
    tokenizer: Tokenizer, attention: str
) -> None:
    """<EOS> is a source piece always, and a target piece unless the translation was cut off."""
    seen = set()
    for seed in range(3):
        search = translator(tokenizer, "gru", attention, seed)
        if seed == 2:  # a model that never ends
            search.trained.model.decoder.output.bias.data[EOS] = -1e4
        for sentence, translations in zip(TEXT, search.beam(TEXT, 4, 4, 0.0), strict=True):
            pieces = tokenizer.pieces(tokenizer.encode([sentence])[0])
            limit = limit_of(tokenizer, sentence)
            for translation in translations:
                ids = list(translation.hypothesis.ids)
                cut_off = len(ids) == limit
                seen.add(cut_off)
                assert translation.source_pieces == [*pieces, "<EOS>"]
                ended = [] if cut_off else ["<EOS>"]
                assert translation.target_pieces == tokenizer.pieces(ids) + ended
                if translation.alignment is not None:
                    rows, columns = translation.alignment.shape
                    assert rows == len(translation.target_pieces)
                    assert columns == len(translation.source_pieces)
    assert seen == {False, True}, "a weak test: all or none are cut off"


class Numbers:
    """A tokenizer whose words are their ids, for vocabularies that no text here would fill."""

    def encode(self, sentences: list[str]) -> list[list[int]]:
        return [list(map(int, sentence.split())) for sentence in sentences]

    def decode(self, sentences: list[list[int]]) -> list[str]:
        return [" ".join(map(str, ids)) for ids in sentences]

    def pieces(self, ids: list[int]) -> list[str]:
        return list(map(str, ids))


@pytest.mark.parametrize(
    ("cell", "attention"), [("lstm", "general"), ("gru", "additive"), ("rnn", "none")]
)
def test_the_batch_changes_nothing_at_the_size_of_real_models(cell: str, attention: str) -> None:
    torch.manual_seed(11)
    model = Seq2Seq(
        ModelSettings(
            cell=cell, attention=attention, heads=1, embedding=256, hidden=256, encoder_layers=1,
            decoder_layers=1, layer_norm=False, dropout=0.3, word_dropout=0.0, tie_embeddings=True,
        ),
        Vocabularies(8000, 8000, True),
    ).eval()  # fmt: skip
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "weight_hh" not in name:  # which would make chaos of the last digits
                weight.mul_(3)  # so sure of its tokens that no two are equally likely
        model.decoder.output.bias[EOS] += 8
    search = Translator(TrainedModel(model, Numbers(), Numbers(), {}), RATIO)  # type: ignore[arg-type]
    random = np.random.default_rng(5)
    sentences = [
        " ".join(map(str, random.integers(4, 8000, int(random.integers(1, 25))))) for _ in range(40)
    ]
    together, greedy = search.beam(sentences, 5, 2, 1.0), search.greedy(sentences)
    assert [ts[0].text for ts in search.beam(sentences, 1, 1, 1.0)] == greedy
    # In 8 bits, the last digit of a feature may decide to which of two levels it is rounded.
    digits = 5e-3 if isinstance(PreparedDecoder(model.decoder).output, QuantizedOutput) else 1e-4
    for row in range(0, len(sentences), 5):
        [alone] = search.beam([sentences[row]], 5, 2, 1.0)
        assert [t.hypothesis.ids for t in alone] == [t.hypothesis.ids for t in together[row]]
        for one, other in zip(alone, together[row], strict=True):
            log_prob = other.hypothesis.log_prob
            assert one.hypothesis.log_prob == pytest.approx(log_prob, rel=1e-5, abs=digits)
        assert search.greedy([sentences[row]]) == [greedy[row]]
    assert len({t for ts in together for t in ts[0].hypothesis.ids}) > 20, "a weak test"


def test_a_translator_takes_no_sentences_too(tokenizer: Tokenizer) -> None:
    search = translator(tokenizer, "gru", "general")
    assert search.greedy([]) == []
    assert search.beam([], 3, 2, 0.0) == []


def test_nothing_is_written_to_disk_or_learned(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Searching leaves the model as it was: twice the same, and no gradients."""
    monkeypatch.chdir(tmp_path)
    search = translator(tokenizer, "lstm", "additive")
    first, second = (search.beam(TEXT, 3, 2, 1.0) for _ in range(2))
    assert [[t.text for t in ts] for ts in first] == [[t.text for t in ts] for ts in second]
    assert all(weight.grad is None for weight in search.trained.model.parameters())
    assert not list(tmp_path.iterdir())


def test_a_length_limit_is_three_times_the_source_unless_said(tokenizer: Tokenizer) -> None:
    assert Translator(translator(tokenizer, "gru", "dot").trained).max_length_ratio == 3.0


# --- whole sets, and what services ask ------------------------------------------------------------


class Watched(Translator):
    """Notes what is searched together."""

    def beam(self, sentences: list[str], *args: Any, **options: Any) -> list[list[Translation]]:
        self.__dict__.setdefault("batches", []).append(sentences)
        return super().beam(sentences, *args, **options)


def check_batches(batches: list[list[str]], sentences: list[str], size: int, t: Tokenizer) -> None:
    """As few as there can be, full ones first, longer sentences before shorter ones."""
    full, rest = divmod(len(sentences), size)
    assert list(map(len, batches)) == [size] * full + [rest] * (rest > 0)
    together = [sentence for batch in batches for sentence in batch]
    assert sorted(together) == sorted(sentences)
    lengths = list(map(len, t.encode(together)))
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_a_set_is_translated_in_batches_of_like_lengths_and_in_order(
    tokenizer: Tokenizer, size: int
) -> None:
    search, batches = translator(tokenizer, "gru", "dot"), []

    def upper(batch: list[str]) -> list[str]:
        batches.append(batch)
        return [sentence.upper() for sentence in batch]

    assert sets.in_batches(search, upper, TEXT, size) == [sentence.upper() for sentence in TEXT]
    check_batches(batches, TEXT, size, tokenizer)


def test_nothing_is_padded_to_a_sentence_that_is_very_long(tokenizer: Tokenizer) -> None:
    search, batches = translator(tokenizer, "gru", "dot"), []
    sentences = [TEXT[0] * 4000, *TEXT]
    sets.in_batches(search, lambda batch: batches.append(batch) or batch, sentences, 64)
    assert batches[0] == sentences[:1]
    check_batches(batches[1:], TEXT, 64, tokenizer)
    service = Watched(search.trained, RATIO)
    answers.translate(service, sentences, Search(beam=1))
    assert service.__dict__["batches"] == [list(filter(str.strip, batch)) for batch in batches]


@pytest.mark.parametrize("long", [[], ["the black house " * 5]], ids=["alone", "beside a long one"])
def test_of_a_long_sentence_no_attention_is_kept(
    tokenizer: Tokenizer, long: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its translation stays, and so does the attention of what it was translated with."""
    search = translator(tokenizer, "gru", "dot")
    wanted = search.beam([*TEXT, *long], 3, 3, 1.0)
    pieces = [len(nbest[0].source_pieces) for nbest in wanted]
    monkeypatch.setattr(module, "ATTENDED", max(pieces[: len(TEXT)]))
    for found, same in zip(search.beam([*TEXT, *long], 3, 3, 1.0), wanted, strict=True):
        assert [t.text for t in found] == [t.text for t in same]
        if len(found[0].source_pieces) <= module.ATTENDED:
            for one, other in zip(found, same, strict=True):
                np.testing.assert_array_equal(one.alignment, other.alignment)
        else:
            assert [t.alignment for t in found] == [None] * len(found)


def test_the_attention_of_later_steps_is_not_kept() -> None:
    options = {"sentences": [0, 1, 2], "limits": [6, 2, 4], "beam": 4, "nbest": 4}
    tables, lost = Tables("random", 4, 0), []
    whole, cut = (tables.search(**options, attended=steps) for steps in (math.inf, 2))
    for one, other in zip(chain(*whole), chain(*cut), strict=True):
        assert one.ids == other.ids
        lost.append(len(one.ids) + one.ended > 2)
        if lost[-1]:
            assert other.attention is None
        else:
            np.testing.assert_array_equal(one.attention, other.attention)
    assert {*lost} == {True, False}, "a weak test"


PENALTIES_OF_A_SET = [0.0, 2.0, 1.0, 2.0]


@pytest.mark.parametrize("best", [0, 1, 2])
def test_of_several_length_penalties_that_of_the_highest_bleu_is_taken(
    tokenizer: Tokenizer, best: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The references are what one of them gives: no other has BLEU 100."""
    trained = translator(tokenizer, "gru", "general").trained
    trained.model.decoder.output.bias.data[EOS] -= 1  # long enough to have a BLEU
    search = Translator(trained._replace(target=Numbers()), 2.0)  # type: ignore[arg-type]
    alone = [search.beam(TEXT, 5, 2, penalty) for penalty in PENALTIES_OF_A_SET]
    texts = [[t[0].text for t in found] for found in alone]
    assert texts[0] != texts[1] != texts[2] != texts[0]
    settings = DecodeSettings(
        beam=5, nbest=2, length_penalty=[0.0], max_length_ratio=1.0, batch_sentences=3
    )
    found, penalty = sets.beam_set(search, settings, PENALTIES_OF_A_SET, TEXT, texts[best])
    assert penalty == PENALTIES_OF_A_SET[best]
    assert [[t.text for t in ts] for ts in found] == [[t.text for t in ts] for ts in alone[best]]
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 4
    assert printed[best] == f"length penalty {penalty:g}: BLEU 100.00"
    assert sum("BLEU 100.00" in line for line in printed) == 1 + (best == 1)
    # Without a choice, the references have no say.
    [only] = {PENALTIES_OF_A_SET[best]}
    found, penalty = sets.beam_set(search, settings, [only], TEXT, [])
    assert penalty == only
    assert [[t.text for t in ts] for ts in found] == [[t.text for t in ts] for ts in alone[best]]
    assert capsys.readouterr().out == ""


def test_of_equally_good_length_penalties_the_first_is_taken(tokenizer: Tokenizer) -> None:
    search = translator(tokenizer, "gru", "general")
    settings = DecodeSettings(
        beam=1, nbest=1, length_penalty=[0.0], max_length_ratio=1.0, batch_sentences=3
    )
    for penalties in [0.5, 1.0], [1.0, 0.5]:  # with beam 1 all are equal
        assert sets.beam_set(search, settings, penalties, TEXT, TEXT)[1] == penalties[0]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_lines_come_back_and_a_line_break_within_one_is_a_space(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str]
) -> None:
    file = tmp_path_factory.mktemp("lines") / "lines"
    sets.write_lines(file, lines)
    assert sets.read_lines(file) == [line.replace("\r", " ").replace("\n", " ") for line in lines]
    assert file.read_bytes().count(b"\n") == len(lines)


def test_the_time_is_that_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([100.0, 107.5])
    monkeypatch.setattr(sets, "time", SimpleNamespace(perf_counter=lambda: next(times)))
    assert sets.timed(lambda: "done") == ("done", 7.5)


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_a_service_translates_in_order_and_nothing_of_what_is_empty(
    tokenizer: Tokenizer, batch: int
) -> None:
    search = Watched(translator(tokenizer, "lstm", "general").trained, RATIO)
    asked = Search(beam=4, nbest=3, length_penalty=0.6)
    sentences = ["", *TEXT, " \t", "milk\u00a0 milk "]
    found = answers.translate(search, sentences, asked, batch)
    plain = [sentence for sentence in [*TEXT, "milk milk"] if sentence]
    check_batches(search.__dict__["batches"], plain, batch, tokenizer)
    for sentence, translations in zip(sentences, found, strict=True):
        if not sentence.strip():
            assert translations == []
            continue
        [alone] = search.beam([" ".join(sentence.split())], 4, 3, 0.6)
        assert [t.text for t in translations] == [t.text for t in alone]


def test_a_service_takes_64_sentences_at_once_unless_said(tokenizer: Tokenizer) -> None:
    search = Watched(translator(tokenizer, "rnn", "none").trained, RATIO)
    answers.translate(search, ["milk"] * 65, Search(beam=1))
    assert list(map(len, search.__dict__["batches"])) == [64, 1]


@pytest.mark.parametrize("attention", ["none", "general"])
def test_an_answer_is_plain_and_rounded(tokenizer: Tokenizer, attention: str) -> None:
    search = translator(tokenizer, "gru", attention)
    search.trained.model.decoder.output.bias.data[EOS] -= 3
    asked = Search(beam=3, nbest=3, alignments=True)
    found = [t for ts in answers.translate(search, TEXT, asked) for t in ts]
    entries = answers.answer(found, asked)
    assert json.loads(json.dumps(entries)) == entries
    assert len(entries) > 9
    for entry, translation in zip(entries, found, strict=True):
        assert entry["text"] == translation.text
        for name in "score", "log_prob":
            value = getattr(translation.hypothesis, name)
            assert entry[name] == round(value, 4) != value
        assert entry["source_pieces"] == translation.source_pieces
        assert entry["target_pieces"] == translation.target_pieces
        weights = translation.alignment
        if weights is None:
            assert entry["alignment"] is None
        else:
            assert np.array(entry["alignment"]) == pytest.approx(weights, abs=0.0006)
            # No digits of single precision after the third: 0.123, never 0.12300000339746475.
            assert all(len(str(weight)) <= 5 for row in entry["alignment"] for weight in row)
    for entry in answers.answer(found, Search(beam=3, nbest=3)):
        assert set(entry) == {"text", "score", "log_prob"}
    assert answers.answer([], asked) == [{"text": "", "score": 0.0, "log_prob": 0.0}]


def test_what_a_service_may_be_asked() -> None:
    assert Search().model_dump() == {
        "beam": 5, "nbest": 1, "length_penalty": 1.0, "alignments": False,
    }  # fmt: skip
    limits = [("beam", 1, 1000), ("nbest", 1, 1000), ("length_penalty", -10.0, 10.0)]
    for name, low, high in limits:
        others = {} if name == "beam" else {"beam": 1000}
        for value in low, high:
            assert getattr(Search(**others | {name: value}), name) == value
        for value in low - 1, high + 1:
            with pytest.raises(ValueError, match=f"(?s){name}.*(greater|less) than"):
                Search(**{"beam": 1000} | {name: value})
    with pytest.raises(ValueError, match=r"nbest \(4\) cannot exceed beam \(3\)"):
        Search(beam=3, nbest=4)
    assert Search.model_validate({"beam": 3, "nbest": 3}).nbest == 3
