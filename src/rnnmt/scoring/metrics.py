"""sacreBLEU's metrics, as sums over sentences that can be resampled.

Each metric is a function of sums of sentence statistics (matched n-grams, lengths, edits). Those
are taken once and then resampled, which makes a thousand resamplings cheap.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import numpy.typing as npt
from sacrebleu import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric

from rnnmt.errors import end_with

Array = npt.NDArray[np.float64]

METRICS: dict[str, Callable[..., Metric]] = {
    "bleu": BLEU,  # cased, 13a
    "chrf": partial(CHRF, word_order=2),  # chrF++
    "ter": TER,
}
TER_BLOCK = 50  # sentences that one process takes at a time
TER_PROCESSES = 8  # at most


def statistics(metric: str, hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """One row of sufficient statistics for each sentence: (sentences, statistics).

    They are whole numbers, so that their sums are exact in any order.
    """
    if metric == "ter":
        return _ter_statistics(hypotheses, references)
    return np.array(_extract(metric, hypotheses, references), dtype=np.float64)


def score(metric: str, sums: Array) -> float:
    """The metric, in points of 0 to 100 (TER: from 0 up), of statistics summed over sentences."""
    return _SCORERS[metric](sums)


def signature(metric: str) -> str:
    """sacreBLEU's signature: with it, the sacrebleu command gives the same number."""
    return str(METRICS[metric](references=[["one reference"]]).get_signature())


def _extract(
    metric: str, hypotheses: Sequence[str], references: Sequence[str]
) -> list[list[float]]:
    # sacreBLEU's own significance tests stand on these two methods (the other is in _SCORERS);
    # nothing public gives the statistics of chrF. The tests hold the result against its command.
    stats: list[list[float]] = METRICS[metric]()._extract_corpus_statistics(
        hypotheses, [references]
    )
    return stats


def _ter_statistics(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """TER searches shifts in plain Python: 20 ms for a bad translation of 30 words."""
    starts = range(0, len(hypotheses), TER_BLOCK)
    blocks = [(hypotheses[i : i + TER_BLOCK], references[i : i + TER_BLOCK]) for i in starts]
    processes = min(TER_PROCESSES, os.cpu_count() or 1)
    with ProcessPoolExecutor(processes, initializer=end_with, initargs=(os.getpid(),)) as pool:
        rows = pool.map(partial(_extract, "ter"), *zip(*blocks, strict=True))
        return np.array([row for block in rows for row in block], dtype=np.float64)


def _scorer(metric: Metric) -> Callable[[Array], float]:
    return lambda sums: float(metric._compute_score_from_stats(sums.tolist()).score)


_SCORERS = {name: _scorer(make()) for name, make in METRICS.items()}
