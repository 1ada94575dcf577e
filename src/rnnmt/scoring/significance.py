"""How sure a score is, and whether two systems differ: resampling over sentences.

What is resampled is the sentence, so the answers are about other sentences of the same kind, with
the models as they were trained. How much another training seed changes is seen from several seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from rnnmt.scoring.metrics import Array

Score = Callable[[Array], float]


def interval(
    statistics: Array, score: Score, samples: int, confidence: float, seed: int
) -> tuple[float, float]:
    """The bootstrap percentile interval of a score (Koehn, 2004), in the score's points.

    `statistics` is (sentences, k). The same seed draws the same sentences for every system.
    """
    random, n = np.random.default_rng(seed), len(statistics)
    scores = np.empty(samples)
    for i in range(samples):
        times = np.bincount(random.integers(n, size=n), minlength=n)  # (n,) each sentence drawn
        scores[i] = score(times @ statistics)
    low, high = np.quantile(scores, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def trials(tests: int, samples: int, confidence: float) -> int:
    """`samples`, or as many as let one clear difference among so many `tests` be significant.

    The smallest p that there can be, adjusted for all tests, is then half of the level at most.
    """
    return max(samples, math.ceil(2 * tests / (1 - confidence)))


def paired_difference(a: Array, b: Array, score: Score) -> float:
    """By how many points `a` exceeds `b`, as a mean over seeds; both (seeds, sentences, k)."""
    return _mean_difference(a.sum(axis=1), b.sum(axis=1), score)


def paired_test(a: Array, b: Array, score: Score, samples: int, seed: int) -> float:
    """The two-sided p-value of paired approximate randomisation (Riezler and Maxwell, 2005).

    `a` and `b` are (seeds, sentences, k). Under the null hypothesis it does not matter which of
    the two systems wrote a translation, so each trial swaps the translations of a random half
    of the sentences, of a sentence's seeds all or none: they are not independent of each other.
    The p-value is the part of the trials that differ at least as much as the systems do.

    It stands here because sacreBLEU 2.6 counts only trials that differ *more*, for which two
    systems with the same output have p = 1 / (samples + 1): highly significant.
    """
    differs = (a != b).any(axis=(0, 2))  # (sentences,): to swap equal ones changes nothing
    sum_a, sum_b = a.sum(axis=1), b.sum(axis=1)  # (seeds, k)
    excess = (a - b)[:, differs]  # (seeds, sentences that differ, k)
    observed = abs(_mean_difference(sum_a, sum_b, score))
    random, extreme = np.random.default_rng(seed), 0
    for _ in range(samples):
        swap = random.integers(2, size=excess.shape[1]).astype(np.float64)
        moved = swap @ excess  # (seeds, k)
        extreme += abs(_mean_difference(sum_a - moved, sum_b + moved, score)) >= observed
    return (extreme + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the given order: valid however the tests depend (1979)."""
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def _mean_difference(a: Array, b: Array, score: Score) -> float:
    """Of sums (seeds, k)."""
    return sum(score(x) - score(y) for x, y in zip(a, b, strict=True)) / len(a)
