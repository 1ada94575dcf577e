"""How long a model's encoder remembers: its gates over sentences, and its gradient's reach.

What is looked at is the encoder's first layer in reading direction: there every variant reads the
same words, without attention.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rnnmt.insight.gates import (
    GATES,
    KEEPS,
    Floats,
    Trace,
    correlation_time,
    gradient_flow,
    half_life,
    mean_jacobian,
    spectral_radius,
    trace,
    weights,
)
from rnnmt.model.folder import TrainedModel
from rnnmt.model.seq2seq import Seq2Seq, Vocabularies
from rnnmt.model.settings import ModelSettings

LAGS = 100
SEQUENCES = 4


def fresh(trained: TrainedModel) -> Seq2Seq:
    """The model as it was before training, but for its random numbers."""
    torch.manual_seed(trained.settings["seed"])
    settings = ModelSettings.model_validate(trained.settings["model"])
    return Seq2Seq(settings, Vocabularies(**trained.settings["vocabularies"])).eval()


def run(model: Seq2Seq, cell: str, ids: Sequence[int], with_jacobians: bool = False) -> Trace:
    """The first layer of the encoder, in reading direction, over piece ids."""
    rows = model.encoder.embedding(torch.tensor(list(ids))).detach().double().numpy()
    recurrent: Any = model.encoder.forwards[0]
    return trace(cell, weights(recurrent.layer), rows, with_jacobians)


def flow(trained: TrainedModel, sentences: Sequence[list[int]]) -> dict[str, Any]:
    """The gradient's reach, trained and fresh, over `SEQUENCES` runs of many sentences' pieces.

    `low` and `high` are the least and the greatest of the runs, `radius` the spectral radius of
    the mean one-step Jacobian, whose powers the spectrum predicts; `recurrent_radius` that of the
    transition matrix U itself, for the rnn.
    """
    cell = trained.settings["model"]["cell"]
    text = [i for ids in sentences for i in ids]
    while len(text) < SEQUENCES * (LAGS + 1):
        text += text
    parts = [text[n * (LAGS + 1) : (n + 1) * (LAGS + 1)] for n in range(SEQUENCES)]
    return {
        "lags": list(range(1, LAGS + 1)),
        "trained": _reach(trained.model, cell, parts),
        "fresh": _reach(fresh(trained), cell, parts),
    }


def _reach(model: Seq2Seq, cell: str, parts: Sequence[Sequence[int]]) -> dict[str, Any]:
    traces = [run(model, cell, ids, with_jacobians=True) for ids in parts]
    flows = np.array([gradient_flow(one.jacobians, LAGS) for one in traces])
    recurrent: Any = model.encoder.forwards[0]
    means = np.exp(np.log(np.maximum(flows, 1e-300)).mean(axis=0))
    found = {
        "norm": _digits(np.minimum(means, flows.max(axis=0))),
        "low": _digits(flows.min(axis=0)),
        "high": _digits(flows.max(axis=0)),
        "radius": round(spectral_radius(mean_jacobian(traces)), 4),
    }
    if cell == "rnn":
        found["recurrent_radius"] = round(spectral_radius(weights(recurrent.layer).state), 4)
    return found


def kept(trained: TrainedModel, sentences: Sequence[list[int]], words: int) -> dict[str, Any]:
    """Gates over the given sentences, whose `words` in all they are; {} for the rnn.

    Half-lives are in words; the correlation time of a cell's activity is measured without looking
    at its gate, over the sentences one after the other, as one long text.
    """
    cell = trained.settings["model"]["cell"]
    if cell not in KEEPS:
        return {}
    traces = [run(trained.model, cell, ids) for ids in sentences]
    gates = {
        name: np.concatenate([one.gates[name] for one in traces]) for name in GATES[cell]
    }  # (pieces, H)
    keep = gates[KEEPS[cell]]
    per_word = words / len(keep)
    whole = run(trained.model, cell, [i for ids in sentences for i in ids])
    hidden = keep.shape[1]
    lives = half_life(whole.gates[KEEPS[cell]]) * per_word
    times = correlation_time(whole.states[:, -hidden:]) * per_word
    start = run(fresh(trained), cell, [i for ids in sentences for i in ids])
    return {
        "gates": {name: _spread(values) for name, values in gates.items()},
        "keeps": KEEPS[cell],
        "keeps_per_sentence": _digits(np.array([one.gates[KEEPS[cell]].mean() for one in traces])),
        "keeps_fresh": round(float(start.gates[KEEPS[cell]].mean()), 4),
        "closed": round(float((keep < 0.5).mean()), 4),
        "within_cell_sd": round(float(keep.std(axis=0).mean()), 4),
        "half_life_words": _digits(np.sort(half_life(keep) * per_word)),
        "half_life_fresh": float(
            f"{np.median(half_life(start.gates[KEEPS[cell]])) * per_word:.4g}"
        ),
        "cells": [
            {"half_life": float(f"{life:.4g}"), "correlation_time": float(f"{time:.4g}")}
            for life, time in zip(lives, times, strict=True)
        ],
    }


def example(trained: TrainedModel, ids: list[int]) -> dict[str, Any]:
    """The gates over one sentence: their means over the cells, and cell by cell, slowest first."""
    cell = trained.settings["model"]["cell"]
    gates = run(trained.model, cell, ids).gates
    if not gates:
        return {}
    order = np.argsort(-half_life(gates[KEEPS[cell]]), kind="stable")
    return {
        "pieces": trained.source.pieces(ids),
        "mean": {name: np.round(values.mean(axis=1), 3).tolist() for name, values in gates.items()},
        "cells": {name: np.round(values[:, order].T, 2).tolist() for name, values in gates.items()},
    }


def _spread(values: Floats) -> dict[str, float]:
    quarters = np.quantile(values, [0.1, 0.5, 0.9])
    return {
        "mean": round(float(values.mean()), 4),
        **{f"p{p}": round(float(q), 4) for p, q in zip((10, 50, 90), quarters, strict=True)},
    }


def _digits(values: Floats) -> list[float]:
    """Four digits each, so that the same numbers give the same bytes in few of them."""
    return [float(f"{value:.4g}") for value in values]
