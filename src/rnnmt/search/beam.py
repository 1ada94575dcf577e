"""Beam search: a pure function over a step function and a state; it knows nothing of layers.

Shapes: B sentences, K beam size, N live hypotheses of all sentences together, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Selectable(Protocol):
    """A state that is a value: one row for each live hypothesis."""

    def select(self, rows: Tensor) -> Self: ...


T = TypeVar("T", bound=Selectable)


class Step(NamedTuple, Generic[T]):
    """What the model says after one more token of each live hypothesis."""

    log_probs: Tensor  # (N, K) of the K likeliest next tokens, best first
    tokens: Tensor  # (N, K) which they are
    state: T
    attention: Tensor | None  # (N, S) weights over the source, if there are any


class Hypothesis(NamedTuple):
    """A translation. `score` = `log_prob` / length^length_penalty, the length counting <EOS>."""

    ids: tuple[int, ...]  # without <BOS> and <EOS>
    log_prob: float  # in nats, of all tokens with <EOS>, which a truncated one lacks
    score: float
    attention: np.ndarray | None  # (tokens with <EOS>, S)
    ended: bool = True  # with <EOS>, rather than cut off


class _End(NamedTuple):
    """A hypothesis that ended: where its last token stands in the trace, and its log_prob."""

    time: int
    row: int
    log_prob: float


class _Trace(NamedTuple):
    """One time step of every live hypothesis, as it was extended (M, all ended ones included)."""

    tokens: list[int]
    parents: list[int]  # row of the step function's output, which is the row in `kept` before
    kept: list[int]  # rows that stay alive, in the order of the next step
    attention: np.ndarray | None  # (N, S)


def beam_search(
    step: Callable[[Tensor, T, int], Step[T]],
    state: T,
    limits: list[int],
    *,
    bos: int,
    eos: int,
    beam: int,
    nbest: int = 1,
    length_penalty: float = 0.0,
    attended: float = math.inf,
) -> list[list[Hypothesis]]:
    """Translate B sentences at once; `state` has one row for each and `limits` (B,) ends them.

    `step` takes the last tokens (N,), the state before them, and how many of the likeliest next
    tokens to return (all, where there are no more than that). Each sentence keeps `beam`
    hypotheses, those that ended included, and is done when as many have ended or when no live
    one can still enter the `nbest`: log-probabilities only fall, so the bound is exact. After
    `limits[b]` tokens the live ones are cut off; they count where none has ended. Returns up
    to `nbest` hypotheses for each sentence, best first; `nbest` never changes the first one.
    Only hypotheses of at most `attended` tokens come with their attention.
    """
    ended: list[list[_End]] = [[] for _ in limits]
    cut: list[list[_End]] = [[] for _ in limits]
    traces: list[_Trace] = []
    lasts = np.array(limits, dtype=np.int64)
    bars = np.full(len(limits), -math.inf)  # the score that a live hypothesis has to reach
    sentences = np.arange(len(limits))  # (N,) the sentence of each live hypothesis
    totals = np.zeros(len(limits))  # (N,) log-probability so far
    tokens = np.full(len(limits), bos)
    while len(sentences):
        log_probs, words, state, attention = step(torch.from_numpy(tokens), state, beam)
        time = len(traces) + 1
        widths = np.array([beam - len(e) for e in ended])
        parents, tokens, totals = _extend(
            log_probs.numpy(), words.numpy(), totals, sentences, widths, beam
        )
        _cut_barren(sentences, parents, traces, cut)
        sentences = sentences[parents]
        is_end = tokens == eos
        for row in np.flatnonzero(is_end).tolist():
            done = ended[sentences[row]]
            done.append(_End(time, row, float(totals[row])))
            bars[sentences[row]] = _bar(done, beam, nbest, length_penalty)
        for row in np.flatnonzero(~is_end & (time >= lasts[sentences])).tolist():
            cut[sentences[row]].append(_End(time, row, float(totals[row])))
        goes_on = _goes_on(sentences, totals, is_end, bars, lasts, time, length_penalty)
        kept = np.flatnonzero(goes_on & ~is_end)
        weights = None if attention is None or time > attended else attention.numpy()
        traces.append(_Trace(tokens.tolist(), parents.tolist(), kept.tolist(), weights))
        sentences, totals, tokens = sentences[kept], totals[kept], tokens[kept]
        state = state.select(torch.from_numpy(parents[kept]))
    return [
        _best(e or c, traces, eos, nbest, length_penalty) for e, c in zip(ended, cut, strict=True)
    ]


def score(log_prob: float, length: int, length_penalty: float) -> float:
    """Length-normalised log-probability (Wu et al. 2016 with the plain power of the length)."""
    return float(log_prob / length**length_penalty)


def _extend(
    log_probs: NDArray[np.float32],
    tokens: Ints,
    totals: Floats,
    sentences: Ints,
    widths: Ints,
    beam: int,
) -> tuple[Ints, Ints, Floats]:
    """The `widths[b]` likeliest extensions of each sentence b.

    `log_probs` and `tokens` (N, K) are those of the K likeliest of each hypothesis. Returns for
    each extension its parent's row, its token and its log-probability, sentence by sentence,
    likeliest first. Impossible ones (log-probability minus infinity) are left out.
    """
    # One line for each sentence: its hypotheses stand side by side, in `slots` of K extensions.
    counts = np.bincount(sentences)
    active = np.flatnonzero(counts)
    counts = counts[active]
    first = counts.cumsum() - counts
    lines = np.repeat(np.arange(len(active)), counts)
    slots = np.arange(len(sentences)) - first[lines]
    count, width = int(counts.max()), tokens.shape[1]
    grid = np.full((len(active), count, width), -math.inf)
    grid[lines, slots] = log_probs + totals[:, None]
    flat = grid.reshape(len(active), -1)
    places = np.argsort(-flat, axis=1, kind="stable")[:, :beam]  # of equals the first
    top = np.take_along_axis(flat, places, axis=1)  # (active, K)
    chosen = (np.arange(top.shape[1]) < widths[active, None]) & (top > -math.inf)
    parents = (first[:, None] + places // width)[chosen]
    return parents, tokens[parents, (places % width)[chosen]], top[chosen]


def _bar(done: list[_End], beam: int, nbest: int, length_penalty: float) -> float:
    """The score that a hypothesis must reach to enter the n best beside those that are `done`."""
    if len(done) >= beam:
        return math.inf
    if len(done) < nbest:
        return -math.inf
    scores = sorted((score(e.log_prob, e.time, length_penalty) for e in done), reverse=True)
    return scores[nbest - 1]


def _goes_on(
    sentences: Ints,
    totals: Floats,
    is_end: NDArray[np.bool_],
    bars: Floats,
    lasts: Ints,
    time: int,
    length_penalty: float,
) -> NDArray[np.bool_]:
    """Which rows (M,) are of sentences with a live hypothesis that can still enter the n best.

    None of a sentence that is cut off by its limit or whose beam is full of ended hypotheses.
    """
    # The best score a live hypothesis can still reach: no further loss, the kindest length.
    kindest = lasts[sentences] if length_penalty > 0 else np.full(len(sentences), time + 1)
    reach = totals / kindest.astype(np.float64) ** length_penalty
    # Powers and quotients can differ from the scores in the last digits: never stop by so little.
    hopeful = reach + 1e-6 * np.abs(reach) >= bars[sentences]
    # A sentence goes on as a whole: leaving out single hypotheses would let in others.
    going = np.zeros(len(bars), dtype=np.bool_)
    going[sentences[hopeful & ~is_end & (time < lasts[sentences])]] = True
    return going[sentences]


def _cut_barren(
    sentences: Ints, parents: Ints, traces: list[_Trace], cut: list[list[_End]]
) -> None:
    """Sentences whose every extension is impossible are cut off where they stand."""
    fertile = np.zeros(len(cut), dtype=np.bool_)
    fertile[sentences[parents]] = True
    barren = ~fertile[sentences]
    if not traces or not barren.any():
        return
    for row, sentence in zip(
        np.flatnonzero(barren).tolist(), sentences[barren].tolist(), strict=True
    ):
        cut[sentence].append(_End(len(traces), traces[-1].kept[row], -math.inf))


def _best(
    ends: list[_End], traces: list[_Trace], eos: int, nbest: int, length_penalty: float
) -> list[Hypothesis]:
    """The n best of what ended, read back; an empty one where nothing is possible."""
    ranked = sorted(
        ((score(end.log_prob, end.time, length_penalty), end) for end in ends),
        key=lambda pair: -pair[0],
    )[:nbest]
    hypotheses = [_read_back(end, value, traces, eos) for value, end in ranked]
    return hypotheses or [Hypothesis((), -math.inf, -math.inf, None, False)]


def _read_back(end: _End, value: float, traces: list[_Trace], eos: int) -> Hypothesis:
    ids: list[int] = []
    weights: list[np.ndarray] = []
    row = end.row
    for time in range(end.time - 1, -1, -1):
        trace = traces[time]
        ids.append(trace.tokens[row])
        parent = trace.parents[row]
        if trace.attention is not None:
            weights.append(trace.attention[parent])
        if time:
            row = traces[time - 1].kept[parent]
    ids.reverse()
    ended = ids[-1] == eos
    attention = np.stack(weights[::-1]) if len(weights) == len(ids) else None
    return Hypothesis(tuple(ids[: len(ids) - ended]), end.log_prob, value, attention, ended)
