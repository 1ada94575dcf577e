"""Scores of parts of the test sets: by length, by phenomenon, by word order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from rnnmt.corpora.words import Links, ends_in_letter, words
from rnnmt.insight.alignment import kendall_tau
from rnnmt.scoring import metrics
from rnnmt.scoring.metrics import Array
from rnnmt.scoring.settings import EvaluateSettings
from rnnmt.scoring.significance import interval

Ints = NDArray[np.int64]
T = TypeVar("T")
Statistics = dict[str, Array]  # metric -> (sentences, k)
LONGEST = 2000  # letters of a sentence that is looked into: that takes their square in memory
BINS = 5  # of sentence lengths, in each test set


def lengths(sources: Sequence[str]) -> Ints:
    """The words of each sentence, punctuation left out."""
    return np.array([sum(map(ends_in_letter, words(text))) for text in sources])


def length_bins(sizes: Ints) -> list[tuple[int, int]]:
    """The first and last length of at most `BINS` bins of about equally many sentences."""
    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, BINS + 1)[1:], method="nearest"))
    firsts = [int(sizes.min()), *(int(edge) + 1 for edge in edges[:-1])]
    return list(zip(firsts, map(int, edges), strict=True))


def statistics(lines: Sequence[str], wanted: Sequence[str]) -> Statistics:
    """What BLEU and chrF++ are made of, for each sentence."""
    return {name: metrics.statistics(name, lines, wanted) for name in ("bleu", "chrf")}


def by_length(
    sources: Sequence[str], stats: Statistics, settings: EvaluateSettings
) -> list[dict[str, Any]]:
    """BLEU and chrF++ of each length bin of one test set, with their intervals."""
    sizes = lengths(sources)
    return [
        {"low": low, "high": high} | measured((low <= sizes) & (sizes <= high), stats, settings)
        for low, high in length_bins(sizes)
    ]


def by_phenomenon(
    labels: Path, stats: Statistics, exact: Array, settings: EvaluateSettings
) -> dict[str, dict[str, Any]]:
    """BLEU and the share of `exact` ones (sentences,) of those with each label; {} without."""
    if not labels.exists():
        return {}
    rows = [
        json.loads(line)["phenomena"] for line in labels.read_text(encoding="utf-8").splitlines()
    ]
    names = sorted({name for row in rows for name in row})
    bleu = {"bleu": stats["bleu"]}
    return {
        name: measured(chosen, bleu, settings) | {"exact": share(exact[chosen], settings)}
        for name in names
        for chosen in [np.array([name in row for row in rows])]
    }


def by_order(
    links: Sequence[Links], stats: Statistics, settings: EvaluateSettings
) -> list[dict[str, Any]]:
    """Scores of the sentences whose words keep their order, and of two halves of the rest."""
    taus = np.array([kendall_tau(pair.sure) for pair in links])
    rest = taus[taus < 1]
    middle = float(np.median(rest)) if len(rest) else 1.0
    parts = {
        "same order": taus == 1,
        "a little": (taus < 1) & (taus >= middle),
        "most": taus < middle,
    }
    return [
        {"order": name, "tau": round(float(taus[chosen].mean()), 3)}
        | measured(chosen, stats, settings)
        for name, chosen in parts.items()
        if chosen.any()
    ]


def short(*sides: Sequence[str]) -> list[int]:
    """The places of the sentences, or pairs, of at most LONGEST letters; of one at least."""
    sizes = [max(map(len, texts)) for texts in zip(*sides, strict=True)]
    longest = max(LONGEST, min(sizes, default=0))
    return [i for i, size in enumerate(sizes) if size <= longest]


def spread(items: Sequence[T], count: int) -> list[T]:
    """At most `count` of the items, in even steps."""
    if len(items) <= count:
        return list(items)
    return [items[(2 * i + 1) * len(items) // (2 * count)] for i in range(count)]


def examples(sources: Sequence[str], count: int) -> list[int]:
    """The places of sentences to show, from the shortest to the longest, in even steps; of empty
    ones there is nothing to be seen.
    """
    places = [i for i in short(sources) if sources[i].strip()]
    return spread(sorted(places, key=lambda i: (len(sources[i]), i)), count)


def measured(
    chosen: NDArray[np.bool_], stats: Statistics, settings: EvaluateSettings
) -> dict[str, Any]:
    """The number of the chosen sentences and their scores, each with its interval."""
    scores: dict[str, Any] = {"sentences": int(chosen.sum())}
    for name, rows in stats.items():
        scores[name] = scored(rows[chosen], partial(metrics.score, name), settings)
    return scores


def share(right: Array, settings: EvaluateSettings) -> dict[str, float]:
    """A share (sentences,), in percent, with its interval."""
    return scored(right[:, None], lambda sums: 100 * float(sums[0]) / len(right), settings)


def scored(rows: Array, score: Any, settings: EvaluateSettings) -> dict[str, float]:
    """A score of rows of statistics with the ends of its bootstrap interval."""
    low, high = interval(
        rows, score, settings.bootstrap_samples, settings.confidence, settings.seed
    )
    point = score(rows.sum(axis=0))
    return {"score": round(point, 2), "low": round(low, 2), "high": round(high, 2)}
