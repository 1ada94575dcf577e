"""Batches of sentences of like lengths, and a loader that can go on in the middle of an epoch.

Shapes: B sentences, S source tokens with <EOS>, T target tokens with <BOS> or <EOS>.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rnnmt.dataset.store import ParallelStore
from rnnmt.dataset.tokenizer import BOS, EOS, PAD


class Batch(NamedTuple):
    """What the model learns from. Nobody else knows about the shift between the last two."""

    source: Tensor  # (B, S) ids, <EOS> last, then padding
    source_lengths: Tensor  # (B,) tokens with <EOS>
    decoder_input: Tensor  # (B, T) <BOS> and the target
    labels: Tensor  # (B, T) the target and <EOS>


def pad(sentences: Sequence[Sequence[int] | NDArray[Any]]) -> tuple[Tensor, Tensor]:
    """Sentences of ids -> ids with <EOS> and padding (B, S) and lengths with <EOS> (B,)."""
    lengths = np.array([len(ids) + 1 for ids in sentences])
    rows = np.full((len(sentences), lengths.max()), PAD, dtype=np.int64)
    for row, ids in zip(rows, sentences, strict=True):
        row[: len(ids)] = ids
        row[len(ids)] = EOS
    return torch.from_numpy(rows), torch.from_numpy(lengths)


def make_batch(store: ParallelStore, rows: Iterable[int]) -> Batch:
    """The sentence pairs `rows` (B,) of a store."""
    pairs = [(store.source[i], store.target[i]) for i in rows]
    source, lengths = pad([ids for ids, _ in pairs])
    labels, _ = pad([ids for _, ids in pairs])
    # Shifted by one: the <EOS> that the roll leaves within padding is read where no loss is taken.
    decoder_input = labels.roll(1, dims=1)
    decoder_input[:, 0] = BOS
    return Batch(source, lengths, decoder_input, labels)


class BatchLoader:
    """Batches of at most `batch_tokens` target tokens, padding included, in random order.

    An epoch is a pure function of (seed, epoch). Sentences are sorted by target length, then by
    source length, then at random, and cut, so that every epoch has as many batches as every
    other. Lightning puts `state_dict` in its checkpoints: a resumed epoch goes on with the next
    batch.
    """

    def __init__(self, store: ParallelStore, batch_tokens: int, seed: int) -> None:
        self.store = store
        self.seed = seed
        self.epoch = 0
        self.yielded = 0  # batches of this epoch that were handed out
        self.sampler = self  # where Lightning looks for set_epoch
        source, target = store.source.lengths, store.target.lengths
        # One sortable number: target length, source length (24 bits each), then a random part.
        self._keys = (target.astype(np.uint64) << np.uint64(40)) | (
            np.minimum(source, 0xFFFFFF).astype(np.uint64) << np.uint64(16)
        )
        self._bounds = _cut(np.sort(target) + 1, batch_tokens)

    def __len__(self) -> int:
        return len(self._bounds) - 1

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng((self.seed, self.epoch))
        noise = random.integers(1 << 16, size=len(self._keys), dtype=np.uint64)
        order = np.argsort(self._keys | noise, kind="stable")
        batches = random.permutation(len(self))
        for i in batches[self.yielded :]:
            self.yielded += 1
            yield make_batch(self.store, order[self._bounds[i] : self._bounds[i + 1]])
        self.yielded = 0

    def set_epoch(self, epoch: int) -> None:
        if epoch != self.epoch:
            self.epoch, self.yielded = epoch, 0

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "yielded": self.yielded}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self.yielded = state["epoch"], state["yielded"]


def _cut(lengths: NDArray[Any], batch_tokens: int) -> NDArray[np.int64]:
    """Where batches begin in sorted `lengths`, and the end; a longer sentence stands alone."""
    bounds = [0]
    while bounds[-1] < len(lengths):
        window = lengths[bounds[-1] : bounds[-1] + batch_tokens]
        sizes = window * np.arange(1, len(window) + 1)
        bounds.append(bounds[-1] + max(1, int(np.searchsorted(sizes, batch_tokens, "right"))))
    return np.array(bounds)
