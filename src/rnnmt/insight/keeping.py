"""What each gated run keeps, with intervals: the numbers that claims and tables have in common."""

from __future__ import annotations

import statistics
from typing import Any

from rnnmt.insight import estimates
from rnnmt.insight.estimates import Estimate
from rnnmt.insight.evidence import Evidence

GATED = ("gru", "lstm")


def openness(evidence: Evidence, run: str) -> Estimate:
    """The mean of the gate that keeps, over sentences."""
    values = evidence.analyses[run]["gates"]["keeps_per_sentence"]
    return estimates.mean(values, evidence.scoring)


def obedience(evidence: Evidence, run: str) -> Estimate:
    """Over the cells, Spearman's correlation of half-life and correlation time."""
    cells = evidence.analyses[run]["gates"]["cells"]
    lives, times = ([cell[key] for cell in cells] for key in ("half_life", "correlation_time"))
    return estimates.rank_correlation(lives, times, evidence.scoring)


def keeping(evidence: Evidence) -> list[dict[str, Any]]:
    """One row for each gated run; half-lives are in words."""
    return [_row(evidence, run) for run in evidence.of(*GATED)]


def half_lives(evidence: Evidence) -> list[dict[str, Any]]:
    """One row for each cell of each gated run."""
    return [
        {"run": run, "cell": place} | cell
        for run in evidence.of(*GATED)
        for place, cell in enumerate(evidence.analyses[run]["gates"]["cells"])
    ]


def _row(evidence: Evidence, run: str) -> dict[str, Any]:
    gates = evidence.analyses[run]["gates"]
    return {
        "run": run,
        "gate": gates["keeps"],
        **_named("mean", openness(evidence, run)),
        "mean_fresh": gates["keeps_fresh"],
        "closed": gates["closed"],
        "within_cell_sd": gates["within_cell_sd"],
        "half_life_median": round(statistics.median(gates["half_life_words"]), 4),
        "half_life_median_fresh": gates["half_life_fresh"],
        "half_life_slowest": gates["half_life_words"][-1],
        **_named("spearman", obedience(evidence, run)),
    }


def _named(name: str, found: Estimate) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found.rounded(), strict=True))
