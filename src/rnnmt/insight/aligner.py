"""A statistical aligner, for corpora whose true word links are not known.

IBM Model 2 with the positions as one bump along the diagonal, in both directions, whose common
links are kept (Brown et al. 1993; Dyer, Chahuneau & Smith 2013).

    p(source word i | target word j) ~ exp(-TENSION |i/M - j/N|) t(target j | source i)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnmt.corpora.words import Link, Links

TENSION = 4.0
NULL = 0.08  # of a word that translates none
ROUNDS = 5
SMOOTHING = 0.01  # added to each count: rare words do not bind whatever stands beside them
PAIRS = 30_000  # sentence pairs that are enough to learn from
CELLS = 10_000  # pairs of words of one sentence pair, at most: what is longer is hardly a sentence
LEARNED = 20_000_000  # pairs of words to learn from, which take 120 bytes each

Ints = NDArray[np.int64]
Pair = tuple[list[str], list[str]]


def align(training: Sequence[Pair], wanted: Sequence[Pair]) -> list[Links]:
    """The links of the `wanted` sentence pairs (source and target words), learned from all.

    A pair of which one side has no words, or both have very many, has no links, and nothing is
    learned from it.
    """
    linked = [pair for pair in wanted if _fits(pair)]
    learned = [pair for pair in training if _fits(pair)]
    learned = learned[:: 1 + sum(len(s) * len(t) for s, t in learned) // LEARNED]
    both = iter(_common([*linked, *learned], len(linked)) if linked else ())
    found = [next(both) if _fits(pair) else set() for pair in wanted]
    return [
        Links(*pair, sure=links, possible=links) for pair, links in zip(wanted, found, strict=True)
    ]


def _fits(pair: Pair) -> bool:
    return 0 < len(pair[0]) * len(pair[1]) <= CELLS


def _common(pairs: Sequence[Pair], wanted: int) -> list[set[Link]]:
    """The links of the first `wanted` pairs that are found in both directions."""
    forwards = _fit(pairs, wanted)
    backwards = _fit([(target, source) for source, target in pairs], wanted)
    return [
        there & {(i, j) for j, i in back} for there, back in zip(forwards, backwards, strict=True)
    ]


class _Grid(NamedTuple):
    """Every pair of a source and a target word that stand in one sentence pair (cells,)."""

    kinds: Ints  # which two words, as a number
    sources: Ints  # the source word alone, as a number
    targets: Ints  # the place of the target word among those of all sentences
    prior: NDArray[np.float64]  # by position


def _fit(pairs: Sequence[Pair], wanted: int) -> list[set[Link]]:
    """For each target word of the first `wanted` pairs, the likeliest source word if any."""
    grid = _grid(pairs)
    probability = np.ones(len(grid.kinds))
    total = int(grid.targets[-1]) + 1
    for _ in range(ROUNDS):
        share = _posterior(grid, probability, total)
        joint = np.bincount(grid.kinds, share) + SMOOTHING
        alone = np.bincount(grid.sources, share) + SMOOTHING * 100
        probability = joint[grid.kinds] / alone[grid.sources]
    return _best(pairs[:wanted], _posterior(grid, probability, total))


def _posterior(grid: _Grid, probability: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    weights = grid.prior * probability
    sums = np.bincount(grid.targets, weights, total) + NULL * 1e-3
    return np.asarray(weights / sums[grid.targets])


def _grid(pairs: Sequence[Pair]) -> _Grid:
    numbers: tuple[dict[str, int], dict[str, int]] = ({}, {})
    parts: list[tuple[Ints, Ints, Ints, NDArray[np.float64]]] = []
    place = 0
    for source, target in pairs:
        left, right = (
            np.array([of.setdefault(word.lower(), len(of)) for word in side])
            for of, side in zip(numbers, (source, target), strict=True)
        )
        m, n = len(source), len(target)
        distance = np.abs((np.arange(m)[None, :] + 0.5) / m - (np.arange(n)[:, None] + 0.5) / n)
        prior = np.exp(-TENSION * distance)
        prior /= prior.sum(axis=1, keepdims=True)
        words = np.tile(left, n), np.repeat(right, m)
        parts.append((*words, np.repeat(np.arange(place, place + n), m), prior.ravel()))
        place += n
    sources, others, targets, prior = (np.concatenate(part) for part in zip(*parts, strict=True))
    _, kinds = np.unique(sources * len(numbers[1]) + others, return_inverse=True)
    return _Grid(kinds, sources, targets, prior)


def _best(pairs: Sequence[Pair], share: NDArray[np.float64]) -> list[set[Link]]:
    found, start = [], 0
    for source, target in pairs:
        end = start + len(source) * len(target)
        rows = share[start:end].reshape(len(target), len(source))
        found.append(
            {(int(row.argmax()), j) for j, row in enumerate(rows) if row.max() > 1 - row.sum()}
        )
        start = end
    return found
