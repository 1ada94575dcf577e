"""The likeliest tokens of each row of logits, in an order that no other row can change."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

CHUNK = 128  # logits whose largest one stands for them all
GROUP = 16  # the same for candidates, which may be more
FEW = 40_000  # fewer logits than these are searched whole, which then is faster
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

    Many rows that are long for `count` are searched through the maxima of their chunks: the largest
    values all stand in the `count` chunks with the largest maxima, or behind the last whole chunk.
    """
    rows, width = values.shape
    chunks = width // CHUNK
    if chunks <= 2 * count or values.numel() < FEW:
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


def candidates(values: Tensor, count: int) -> Tensor:
    """The places (N, count) of the `count` largest of each row (N, V), in any order.

    Found as `largest` finds them, but in groups whose members stand far apart, of which maxima are
    taken faster.
    """
    rows, width = values.shape
    groups = width // GROUP
    if groups <= 2 * count or values.numel() < FEW:
        return values.topk(count, dim=1, sorted=False).indices
    maxima = values[:, : groups * GROUP].view(rows, GROUP, groups).amax(1)
    best = maxima.topk(count, dim=1, sorted=False).indices
    columns = (best.unsqueeze(2) + torch.arange(0, groups * GROUP, groups)).flatten(1)
    if width % GROUP:
        rest = torch.arange(groups * GROUP, width).expand(rows, -1)
        columns = torch.cat([columns, rest], dim=1)
    places = values.gather(1, columns).topk(count, dim=1, sorted=False).indices
    return columns.gather(1, places)


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
