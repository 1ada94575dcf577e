"""What a model's attention does over a whole test set, read while it is told the translation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rnnmt.corpora.words import Link, Links
from rnnmt.dataset.batch import in_chunks, make_batch
from rnnmt.dataset.store import ParallelStore
from rnnmt.insight.alignment import (
    Floats,
    aer_counts,
    by_words,
    diagonal,
    entropy,
    error_rate,
    nearest,
    owners,
    strongest,
)
from rnnmt.insight.slices import scored, short
from rnnmt.model.folder import TrainedModel
from rnnmt.scoring.settings import EvaluateSettings

BATCH = 64


class Attended(NamedTuple):
    """The attention of one sentence pair."""

    pieces: Floats  # (T, S), <EOS> in both
    words: Floats  # (N, M)


@torch.inference_mode()
def forced(
    trained: TrainedModel, store: ParallelStore, texts: tuple[Sequence[str], Sequence[str]]
) -> Iterator[Attended]:
    """The attention of each `short` pair of a store, whose two `texts` they are, by forced
    decoding.
    """
    lengths = np.maximum(store.source.lengths, store.target.lengths).tolist()
    for rows in in_chunks(short(*texts), lengths.__getitem__, BATCH):
        batch = make_batch(store, rows)
        output = trained.model(batch.source, batch.source_lengths, batch.decoder_input)
        for row, weights in zip(rows, output.attention.double().numpy(), strict=True):
            sides = [
                [*tokenizer.pieces(list(map(int, ids[row]))), "<EOS>"]
                for tokenizer, ids in zip((trained.source, trained.target), store, strict=True)
            ]
            pieces = weights[: len(sides[1]), : len(sides[0])]
            source, target = (
                owners(text[row], side) for text, side in zip(texts, sides, strict=True)
            )
            yield Attended(pieces, by_words(pieces, source, target))


def judged(
    attended: Sequence[Attended], links: Sequence[Links], settings: EvaluateSettings
) -> dict[str, Any]:
    """Alignment error rate, beside that of a diagonal and the least there can be, and entropy."""
    found = [strongest(one.words) for one in attended]
    entropies = np.array([entropy(one.pieces) for one in attended])
    return {
        "aer": _rate(found, links, settings),
        "aer_diagonal": _rate([diagonal(pair) for pair in links], links, settings),
        "aer_least": _rate([nearest(pair) for pair in links], links, settings),
        "entropy_bits": scored(
            entropies[:, None], lambda sums: float(sums[0]) / len(entropies), settings
        ),
        "entropy_uniform": round(
            float(np.mean([np.log2(one.pieces.shape[1]) for one in attended])), 2
        ),
    }


def _rate(
    found: Sequence[set[Link]], links: Sequence[Links], settings: EvaluateSettings
) -> dict[str, float]:
    """In percent, with its interval."""
    counts = np.array([aer_counts(*one) for one in zip(found, links, strict=True)], dtype=float)
    return scored(counts, lambda sums: 100 * error_rate([(sums[0], sums[1])]), settings)
