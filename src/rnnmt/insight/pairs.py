"""Which variants may be set against each other: those that differ in one thing only."""

from __future__ import annotations

from typing import Any, NamedTuple

from rnnmt.insight.evidence import Evidence

Settings = dict[str, Any]
Pair = tuple[str, str]  # a gru and an lstm variant

ALIKE = 0.02  # of the parameters, by which two variants with equally many may differ


class DataPoint(NamedTuple):
    """A gru and an lstm variant that were trained on the same part of the training data."""

    fraction: float
    gru: str
    lstm: str


def cell_pairs(evidence: Evidence) -> list[Pair]:
    """The gru and lstm variants that have all but the cell and the learning rate in common.

    Of several that differ in the rate alone, the one that is best on validation data.
    """
    return [
        pair
        for pair in _crossed(evidence)
        if _rest(evidence, pair[0], "cell") == _rest(evidence, pair[1], "cell")
    ]


def equal_parameters(evidence: Evidence) -> list[Pair]:
    """As `cell_pairs`, of different widths, such that both have about as many parameters."""

    def alike(gru: str, lstm: str) -> bool:
        return abs(parameters(evidence, gru) / parameters(evidence, lstm) - 1) <= ALIKE

    own = ("cell", "hidden")
    return [
        pair
        for pair in _crossed(evidence)
        if pair not in cell_pairs(evidence)
        and _rest(evidence, pair[0], *own) == _rest(evidence, pair[1], *own)
        and alike(*pair)
    ]


def parameters(evidence: Evidence, variant: str) -> int:
    return int(evidence.comparison["variants"][variant]["training"][0]["parameters"])


def data_series(evidence: Evidence) -> list[list[DataPoint]]:
    """The cell pairs that are alike but for how much they were trained on, from little to much.

    They may differ in the number of epochs too: little data needs more of them.
    """
    series: list[tuple[object, list[DataPoint]]] = []
    for gru, lstm in cell_pairs(evidence):
        own = ("learning_rate", "fraction", "max_epochs", "patience")
        alike = _but(evidence, gru, "model"), _but(evidence, gru, "train", *own)
        point = DataPoint(fraction(evidence, gru), gru, lstm)
        for known, points in series:
            if known == alike:
                points.append(point)
                break
        else:
            series.append((alike, [point]))
    return [sorted(points) for _, points in series if len({p.fraction for p in points}) > 1]


def fraction(evidence: Evidence, variant: str) -> float:
    """The part of the training data that a variant has read."""
    return float(evidence.settings(variant, "train").get("fraction", 1.0))


def attention_twins(evidence: Evidence) -> list[Pair]:
    """The variants with attention, each with its twin without."""
    names = [tuple(run.rpartition("-")[0] for run in pair) for pair in evidence.twins]
    return list(dict.fromkeys((a, b) for a, b in names))


def _crossed(evidence: Evidence) -> list[Pair]:
    def of(cell: str) -> list[str]:
        tuned = evidence.comparison["tuned"]
        return [v for v in tuned if evidence.settings(v, "model")["cell"] == cell]

    return [(gru, lstm) for gru in of("gru") for lstm in of("lstm")]


def _rest(evidence: Evidence, variant: str, *own: str) -> tuple[Settings, Settings]:
    return _but(evidence, variant, "model", *own), _but(evidence, variant, "train", "learning_rate")


def _but(evidence: Evidence, variant: str, part: str, *own: str) -> Settings:
    """A variant's settings without the keys that are its own."""
    return {k: v for k, v in evidence.settings(variant, part).items() if k not in own}
