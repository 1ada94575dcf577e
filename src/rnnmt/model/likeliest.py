"""The likeliest tokens of each row of logits, in an order that no other row can change."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

CHUNK = 128  # logits whose largest one stands for them all
ROWS = 64  # whose log-probabilities are computed at a time, so that they stay in the cache


def likeliest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Log-probabilities and tokens (N, count) of the likeliest of `logits` (N, V), best first.

    Ordered by the logits, which differ where log-probabilities may be equal in their precision.
    """
    _, tokens = largest(logits, count)
    blocks = zip(torch.split(logits, ROWS), torch.split(tokens, ROWS), strict=True)
    return torch.cat([rows.log_softmax(dim=1).gather(1, best) for rows, best in blocks]), tokens


def largest(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row (N, V) and their places, largest first; of equals the first.

    Rows that are long for `count` are searched through the maxima of their chunks: the largest
    values all stand in the `count` chunks with the largest maxima, or behind the last whole chunk.
    """
    rows, width = values.shape
    chunks = width // CHUNK
    if chunks <= 2 * count:
        return _sorted(values, count)
    maxima = values[:, : chunks * CHUNK].view(rows, chunks, CHUNK).amax(2)
    # In the order of their places, so that of equals the first stays the first.
    starts = _sorted(maxima, count)[1].sort(dim=1).values * CHUNK
    columns = (starts.unsqueeze(2) + torch.arange(CHUNK)).flatten(1)
    if width % CHUNK:
        rest = torch.arange(chunks * CHUNK, width).expand(rows, -1)
        columns = torch.cat([columns, rest], dim=1)
    top, places = _sorted(values.gather(1, columns), count)
    return top, columns.gather(1, places)


def _sorted(values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """torch.topk, which takes equals in an order that depends on the other rows, put right."""
    # One more than asked for shows whether the last one has an equal that was left out.
    top, places = values.topk(min(count + 1, values.shape[1]), dim=1)
    found = top.numpy()
    equals = (found[:, 1:] == found[:, :-1]) & (found[:, 1:] > -math.inf)
    if equals.any():
        rows = torch.from_numpy(np.flatnonzero(equals.any(axis=1)))
        ordered, order = values[rows].sort(dim=1, descending=True, stable=True)
        top[rows], places[rows] = ordered[:, : top.shape[1]], order[:, : top.shape[1]]
    return top[:, :count], places[:, :count]
