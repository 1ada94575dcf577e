"""Estimates with their intervals, by resampling what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rnnmt.scoring.settings import EvaluateSettings

Floats = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float

    def above(self, limit: float) -> bool:
        """The whole interval is."""
        return self.low > limit

    def below(self, limit: float) -> bool:
        """The whole interval is."""
        return self.high < limit

    def shown(self, digits: str = ".2f") -> str:
        value, low, high = (format(x, digits) for x in self)
        return f"{value} [{low}, {high}]"

    def rounded(self) -> list[float]:
        return [round(x, 4) for x in self]


def bootstrap(
    measure: Callable[[Floats], float], count: int, settings: EvaluateSettings
) -> Estimate:
    """A measure of weights (count,) of sentences or cells, and its percentile interval."""
    random = np.random.default_rng(settings.seed)
    drawn = [
        measure(np.bincount(random.integers(count, size=count), minlength=count).astype(float))
        for _ in range(settings.bootstrap_samples)
    ]
    return Estimate(measure(np.ones(count)), *_ends(drawn, settings))


def mean(values: Sequence[float], settings: EvaluateSettings) -> Estimate:
    """The mean of values (N,)."""
    array = np.array(values)
    return bootstrap(lambda weight: float(weight @ array / weight.sum()), len(array), settings)


def rank_correlation(
    a: Sequence[float], b: Sequence[float], settings: EvaluateSettings
) -> Estimate:
    """Spearman's, of two values (N,) of the same cells; 0 where those of one are all the same."""
    ranks = [_ranks(values) for values in (a, b)]

    def correlation(weight: Floats) -> float:
        x, y = (r - weight @ r / weight.sum() for r in ranks)
        spread = float((weight @ x**2) * (weight @ y**2))
        return float(weight @ (x * y) / np.sqrt(spread)) if spread > 0 else 0.0

    return bootstrap(correlation, len(a), settings)


def _ranks(values: Sequence[float]) -> Floats:
    """The place of each of the values (N,) in ascending order; of equals, the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((counts.cumsum() - (counts - 1) / 2)[inverse])


def share(part: int, whole: int, settings: EvaluateSettings) -> Estimate:
    """A share with Wilson's interval (1927), which is honest with few."""
    if not whole:
        return Estimate(0.0, 0.0, 1.0)
    z, found = NormalDist().inv_cdf((1 + settings.confidence) / 2), part / whole
    middle = (found + z * z / (2 * whole)) / (1 + z * z / whole)
    half = z * np.sqrt(found * (1 - found) / whole + z * z / (4 * whole**2)) / (1 + z * z / whole)
    return Estimate(found, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def slope(columns: Floats, gain: Floats, weight: Floats) -> float:
    """The weighted least-squares coefficient of the second of the columns (sentences, 3)."""
    weighted = columns * weight[:, None]
    solution = np.linalg.lstsq(columns.T @ weighted, weighted.T @ gain, rcond=None)[0]
    return float(solution[1])


def _ends(drawn: Sequence[float], settings: EvaluateSettings) -> tuple[float, float]:
    outside = (1 - settings.confidence) / 2
    low, high = np.quantile(drawn, [outside, (1 + settings.confidence) / 2])
    return float(low), float(high)
