"""Beam search: a pure function over a step function and a state; it knows nothing of layers.

Shapes: B sentences, K beam size, N live hypotheses of all sentences together, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor


class Selectable(Protocol):
    """A state that is a value: one row for each live hypothesis."""

    def select(self, rows: Tensor) -> Self: ...


T = TypeVar("T", bound=Selectable)


class Step(NamedTuple, Generic[T]):
    """What the model says after one more token of each live hypothesis."""

    log_probs: Tensor  # (N, V) of the next token
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
    step: Callable[[Tensor, T], Step[T]],
    state: T,
    limits: list[int],
    *,
    bos: int,
    eos: int,
    beam: int,
    nbest: int = 1,
    length_penalty: float = 0.0,
) -> list[list[Hypothesis]]:
    """Translate B sentences at once; `state` has one row for each and `limits` (B,) ends them.

    `step` takes the last tokens (N,) and the state before them. Each sentence keeps `beam`
    hypotheses, those that ended included, and is done when as many have ended or when no live
    one can still enter the `nbest`: log-probabilities only fall, so the bound is exact. After
    `limits[b]` tokens the live ones are cut off; they count where none has ended. Returns up
    to `nbest` hypotheses for each sentence, best first; `nbest` never changes the first one.
    """
    ended: list[list[_End]] = [[] for _ in limits]
    cut: list[list[_End]] = [[] for _ in limits]
    traces: list[_Trace] = []
    sentences = torch.arange(len(limits))  # (N,) the sentence of each live hypothesis
    totals = torch.zeros(len(limits))  # (N,) log-probability so far
    tokens = torch.full((len(limits),), bos)
    while len(sentences):
        log_probs, state, attention = step(tokens, state)
        time = len(traces) + 1
        widths = torch.tensor([beam - len(e) for e in ended])
        parents, tokens, totals = _extend(log_probs, totals, sentences, widths, beam)
        _cut_barren(sentences, parents, traces, cut)
        sentences = sentences[parents]
        is_end = tokens == eos
        for row in is_end.nonzero().flatten().tolist():
            ended[sentences[row]].append(_End(time, row, float(totals[row])))
        goes_on = _goes_on(
            sentences, totals, is_end, ended, limits, time, beam, nbest, length_penalty
        )
        for row in (~is_end & (time >= torch.tensor(limits)[sentences])).nonzero().flatten():
            cut[sentences[row]].append(_End(time, int(row), float(totals[row])))
        kept = (goes_on & ~is_end).nonzero().flatten()
        traces.append(
            _Trace(
                tokens.tolist(),
                parents.tolist(),
                kept.tolist(),
                None if attention is None else attention.numpy(),
            )
        )
        sentences, totals, tokens = sentences[kept], totals[kept], tokens[kept]
        state = state.select(parents[kept])
    return [
        _best(e or c, traces, eos, nbest, length_penalty) for e, c in zip(ended, cut, strict=True)
    ]


def score(log_prob: float, length: int, length_penalty: float) -> float:
    """Length-normalised log-probability (Wu et al. 2016 with the plain power of the length)."""
    return float(log_prob / length**length_penalty)


def _extend(
    log_probs: Tensor, totals: Tensor, sentences: Tensor, widths: Tensor, beam: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The `widths[b]` likeliest extensions of each sentence b.

    Returns for each of them its parent's row, its token and its log-probability, sentence by
    sentence, likeliest first. Impossible ones (log-probability minus infinity) are left out.
    """
    best, tokens = _top(log_probs, min(beam, log_probs.shape[1]))  # (N, K)
    best = best + totals.unsqueeze(1)
    # One line for each sentence: its hypotheses stand side by side, in `slots` of K extensions.
    first = torch.searchsorted(sentences, sentences)
    slots = torch.arange(len(sentences)) - first
    active, lines = torch.unique_consecutive(sentences, return_inverse=True)
    count, width = int(slots.max()) + 1, best.shape[1]
    grid = best.new_full((len(active), count, width), -math.inf)
    grid[lines, slots] = best
    top, places = _top(grid.flatten(1), min(beam, count * width))  # (active, K)
    ranks = torch.arange(top.shape[1])
    chosen = (ranks < widths[active].unsqueeze(1)) & (top > -math.inf)
    first_rows = torch.zeros(len(active), dtype=torch.long)
    first_rows[lines] = first
    parents = (first_rows.unsqueeze(1) + places // width)[chosen]
    return parents, tokens[parents, (places % width)[chosen]], top[chosen]


def _top(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row (N, V) and their places; of equals, the first come first.

    torch.topk takes equals in an order that depends on the other rows.
    """
    top, places = values.topk(count, dim=1)
    equals = (values >= top[:, -1:]).sum(dim=1) > count
    equals |= (top[:, 1:] == top[:, :-1]).any(dim=1)
    rows = (equals & (top[:, 0] > -math.inf)).nonzero().squeeze(1)
    if len(rows):
        ordered, order = values[rows].sort(dim=1, descending=True, stable=True)
        top[rows], places[rows] = ordered[:, :count], order[:, :count]
    return top, places


def _goes_on(
    sentences: Tensor,
    totals: Tensor,
    is_end: Tensor,
    ended: list[list[_End]],
    limits: list[int],
    time: int,
    beam: int,
    nbest: int,
    length_penalty: float,
) -> Tensor:
    """Which rows (M,) are of sentences with a live hypothesis that can still enter the n best.

    None of a sentence that is cut off by its limit or whose beam is full of ended hypotheses.
    """
    bars = []
    for done, limit in zip(ended, limits, strict=True):
        if time >= limit or len(done) >= beam:
            bars.append(math.inf)
        elif len(done) < nbest:
            bars.append(-math.inf)
        else:
            scores = sorted((score(e.log_prob, e.time, length_penalty) for e in done), reverse=True)
            bars.append(scores[nbest - 1])
    # The best score a live hypothesis can still reach: no further loss, the kindest length.
    kindest = [limit if length_penalty > 0 else time + 1 for limit in limits]
    powers = torch.tensor([float(n) ** length_penalty for n in kindest])
    # Float32 sums can differ from the scores above in the last digits: never stop by so little.
    reach = totals / powers[sentences]
    hopeful = reach + 1e-6 * reach.abs() >= torch.tensor(bars)[sentences]
    # A sentence goes on as a whole: leaving out single hypotheses would let in others.
    going = torch.zeros(len(limits), dtype=torch.bool)
    going[sentences[hopeful & ~is_end]] = True
    return going[sentences]


def _cut_barren(
    sentences: Tensor, parents: Tensor, traces: list[_Trace], cut: list[list[_End]]
) -> None:
    """Sentences whose every extension is impossible are cut off where they stand."""
    barren = set(sentences.tolist()) - set(sentences[parents].tolist())
    if not barren or not traces:
        return
    for row, sentence in zip(traces[-1].kept, sentences.tolist(), strict=True):
        if sentence in barren:
            cut[sentence].append(_End(len(traces), row, -math.inf))


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
    attention = np.stack(weights[::-1]) if weights else None
    return Hypothesis(tuple(ids[: len(ids) - ended]), end.log_prob, value, attention, ended)
